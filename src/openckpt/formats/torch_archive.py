"""PyTorch files, told apart and named, never executed.

    zip      torch.save since 1.6, TorchScript: members NAME/data.pkl, NAME/data/0 ..., or constants.pkl
    pickle   torch.save before 1.6: pickles one after the other, the first one the magic number 0x1950a86a20f9469cfc6c
    tar      torch.save before 0.1.12: members pickle, storages, tensors

All three are read by unpickling, which runs whatever code the file names, so openckpt does not open them; the way out is
PyTorch's own loader with ``weights_only=True``, into a safetensors file.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from openckpt.errors import FormatError, UnsafeError
from openckpt.limits import DEFAULT_LIMITS, Limits

if TYPE_CHECKING:
    from openckpt.storage.reading import ByteSource

# pickle protocol 2, LONG1 of ten bytes: the magic number with which torch.save began before it wrote zips
_LEGACY = b"\x80\x02\x8a\x0a" + (0x1950A86A20F9469CFC6C).to_bytes(10, "little") + b"."


@dataclass(frozen=True, slots=True)
class TorchFile:
    """What kind of PyTorch file it is: ``kind`` also is the last part of the code of its refusal."""

    kind: Literal["zip", "pickle", "tar"]
    detail: str


def describe_torch(source: ByteSource, *, limits: Limits = DEFAULT_LIMITS) -> TorchFile | None:
    """Return what kind of PyTorch file this is by its content, or None for anything else. Runs nothing, unpickles nothing."""
    from openckpt.storage.archive import archive_kind, open_archive

    head = source.read_at(0, min(len(_LEGACY), source.size))
    if head == _LEGACY:
        return TorchFile("pickle", "a PyTorch file of before 1.6 (pickles in a row)")
    kind = archive_kind(source)
    if kind not in ("zip", "tar"):
        return None
    try:
        names = {member.path for member in open_archive(source, limits=limits).listing().members.values()}
    except FormatError:
        return None
    if kind == "tar":
        old = {"pickle", "storages", "tensors"} <= names
        return TorchFile("tar", "a PyTorch file of before 0.1.12 (a tar of pickles)") if old else None
    if "data.pkl" in names or any(name.endswith("/data.pkl") for name in names):
        script = any(name.endswith("constants.pkl") for name in names)
        return TorchFile("zip", "a TorchScript archive" if script else "a PyTorch checkpoint (a zip around a pickle)")
    return None


def refuse_torch(source: ByteSource, found: TorchFile) -> UnsafeError:
    """Make the error that names the file and the way out: PyTorch's own safe loader, into safetensors."""
    target = f"{source.path.rpartition('.')[0] or source.path}.safetensors"
    program = (
        "import sys, torch, safetensors.torch as s; d = torch.load(sys.argv[1], map_location='cpu', weights_only=True); "
        "s.save_file({k: v.contiguous().clone() for k, v in d.get('state_dict', d).items()}, sys.argv[2])"
    )
    return UnsafeError(
        f"torch.{found.kind}",
        source.path,
        f"this is {found.detail}; opening it would run code that the file chose",
        fix=f"python -c {shlex.quote(program)} {shlex.quote(source.path)} {shlex.quote(target)}",
    )
