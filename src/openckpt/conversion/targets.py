"""What to write: by the caller's word, else by the suffix of the target, else a dual prefix."""

from __future__ import annotations

from openckpt.conversion.result import TargetFormat
from openckpt.errors import UnsupportedError
from openckpt.formats.names import INDEX_SUFFIX, SAFETENSORS_SHARDS_SUFFIX, parse_shard_name

FORMATS: tuple[TargetFormat, ...] = ("dual", "tensorflow", "safetensors", "hdf5", "npz")
PREFIXES = frozenset(("dual", "tensorflow"))
"""formats whose target is a prefix, not a file"""

_SUFFIXES: dict[str, TargetFormat] = {
    ".safetensors": "safetensors", SAFETENSORS_SHARDS_SUFFIX: "safetensors", ".npz": "npz",
    ".h5": "hdf5", ".hdf5": "hdf5", ".h5f": "hdf5", ".hdf": "hdf5",
}  # fmt: skip
# What nobody means as the prefix of a checkpoint; converting to it is another program's work, or no conversion at all.
_FOREIGN = (
    ".keras",
    ".pt",
    ".pth",
    ".bin",
    ".onnx",
    ".pb",
    ".zip",
    ".tar",
    ".tar.gz",
    ".tgz",
    ".gguf",
    ".json",
    ".meta",
)


def choose_format(target: str, to: str | None) -> TargetFormat:
    """Return the format to write.

    Raises:
        UnsupportedError: there is no such format, or the name promises one that is not written (``convert.target``).
    """
    if to is not None:
        for name in FORMATS:
            if name == to:
                return name
        raise UnsupportedError("convert.target", target, f"{to!r} is no format that is written", expected=_list())
    lower = target.lower()
    for suffix, name in sorted(_SUFFIXES.items(), key=lambda item: -len(item[0])):
        if lower.endswith(suffix):
            return name
    for suffix in _FOREIGN:
        if lower.endswith(suffix):
            raise UnsupportedError("convert.target", target, f"{suffix} files are not written", expected=_list())
    return "dual"


def prefix_of_target(target: str) -> str:
    """Return the prefix that a target means: the name of its index or of a data file stands for it, as for TensorFlow."""
    shard = parse_shard_name(target)
    return shard[0] if shard is not None else target.removesuffix(INDEX_SUFFIX)


def _list() -> str:
    return f"{', '.join(FORMATS[:-1])} or {FORMATS[-1]}"
