"""Codes of the area `dual`: data files that are at the same time safetensors files."""

from openckpt.codes.code import Code

_AGAIN = "fetch or copy the file again, or go back to another step: openckpt find {dir}"
_FAULTY = "A faulty program wrote the file, or somebody edited its header by hand."

CODES: dict[str, Code] = {
    "dual.header-checksum": Code(
        "error",
        "The header of this safetensors file is not the one that openckpt wrote: a bad disk, memory or network, or an edit by hand.",
        _AGAIN,
    ),
    "dual.metadata": Code("error", _FAULTY, _AGAIN),
    "dual.contradiction": Code("error", _FAULTY, _AGAIN),
    "dual.duplicate-key": Code("error", _FAULTY, _AGAIN),
    "dual.rewritten": Code(
        "note",
        "The file was a data file of a checkpoint until another program wrote it again; it is now read like any safetensors file, without checksums, and strings and other types that safetensors lacks show as plain bytes.",
        None,
    ),
    "dual.differs": Code(
        "warning",
        "TensorFlow reads by the index and safetensors by the header of the data file, and the two say different things: one of them was patched, or the data file is of another save.",
        _AGAIN,
    ),
    "dual.other-names": Code(
        "note",
        "Index and safetensors header name different tensors: the index was made anew over the same data file, to rename or to leave out. TensorFlow and openckpt go by the index.",
        None,
    ),
    "dual.superseded": Code(
        "note",
        "A delta checkpoint: tensors that had not changed lie in a data file that it shares with an earlier step, together with values that it has replaced.",
        None,
    ),
    "dual.version": Code(
        "error", "The file was written by an openckpt that is newer than this one.", "pip install --upgrade openckpt"
    ),
    "dual.header-too-large": Code(
        "error",
        "A safetensors header ends at 100 MB, and the names of so many tensors do not fit into it.",
        'write more and smaller shards, or pass layout="tensorflow", whose data files have no header',
    ),
}
