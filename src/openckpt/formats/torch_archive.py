"""PyTorch files, named and refused with the way out. Nothing is ever unpickled.

    zip      torch.save since 1.6, TorchScript: members NAME/data.pkl, NAME/data/0 ...
    pickle   torch.save before 1.6: pickles one after the other, the first one the number 0x1950a86a20f9469cfc6c
    tar      torch.save before 0.1.12: members pickle, storages, tensors

All three are read by unpickling, which runs whatever code the file names; PyTorch's own loader can do without that
(``weights_only=True``), and writes a safetensors file that openckpt opens.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from openckpt.codes.quoting import quoted, quoted_word
from openckpt.errors import FormatError, UnsafeError
from openckpt.limits import DEFAULT_LIMITS, Limits

if TYPE_CHECKING:
    from openckpt.storage.reading import ByteSource

_CONVERT = (
    'import sys, torch, safetensors.torch as s; d = torch.load(sys.argv[1], map_location="cpu", weights_only=True); '
    's.save_file({k: v.contiguous().clone() for k, v in d.get("state_dict", d).items()}, sys.argv[2])'
)


@dataclass(frozen=True, slots=True)
class TorchFile:
    """What kind of PyTorch file it is, and in words."""

    kind: Literal["zip", "pickle", "tar"]
    detail: str


def describe_torch(source: ByteSource, *, limits: Limits = DEFAULT_LIMITS) -> TorchFile | None:
    """Return what kind of PyTorch file this is by its content, or None for anything else."""
    from openckpt.formats.detect import detect

    found = detect(source)
    if found.kind == "torch-zip":
        return TorchFile("zip", found.detail)
    if found.kind == "torch-pickle":
        return TorchFile("pickle", found.detail)
    if found.kind == "tar" and _is_torch_tar(source, limits):
        return TorchFile(
            "tar", "a PyTorch checkpoint of before 0.1.12 (a tar with a pickle inside, never executed here)"
        )
    return None


def _is_torch_tar(source: ByteSource, limits: Limits) -> bool:
    from openckpt.storage.archive import open_archive

    try:
        names = open_archive(source, limits=limits).listing().members.keys()
    except FormatError:
        return False
    return {"pickle", "storages", "tensors"} <= names


def refuse_torch(source: ByteSource, found: TorchFile) -> UnsafeError:
    """Make the error that names the file and the command that writes its tensors to a safetensors file."""
    return UnsafeError(
        "detect.torch",
        source.path,
        f"this is {found.detail}; opening it would run code that the file chose",
        fix=convert_command(source.path),
    )


def convert_command(path: str) -> str:
    """Return the command that writes the tensors of a PyTorch file to a safetensors file beside it."""
    directory, slash, name = path.rpartition("/")
    target = f"{directory}{slash}{name.rpartition('.')[0] or name}.safetensors"
    return f"python -c {quoted_word(_CONVERT)} {quoted(path)} {quoted(target)}"
