"""Codes of the area `dual`: data files that are at the same time safetensors files."""

from openckpt.codes.code import Code

_AGAIN = "fetch or copy the file again, or go back to another step: openckpt find {dir}"
_FAULTY = "A faulty program wrote the file, or somebody edited it by hand."

CODES: dict[str, Code] = {
    "dual.header-too-large": Code(
        "error",
        "A safetensors header ends at 100 MB, and the names of so many tensors do not fit into it.",
        'write more and smaller shards, or pass layout="tensorflow", whose data files have no header',
    ),
}
