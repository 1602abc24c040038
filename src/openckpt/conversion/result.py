"""What a conversion did, as a value."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from openckpt.storage.writable import Durability

TargetFormat = Literal["dual", "tensorflow", "safetensors", "hdf5", "npz"]


@dataclass(frozen=True, slots=True)
class CastReport:
    """What one cast did to the tensors of one type.

    Attributes:
        source: TensorFlow's name of the type before.
        target: and after.
        tensors: how many were cast.
        largest_error: the largest difference between a finite value and what became of it; overflows apart.
        at: the key of the tensor with the largest difference; None where nothing changed.
        overflows: finite values that became infinite, or NaN where the target has no infinity.
    """

    source: str
    target: str
    tensors: int
    largest_error: float
    at: str | None
    overflows: int


@dataclass(frozen=True, slots=True)
class Conversion:
    """What `convert` did.

    Attributes:
        source: the prefix or file that was read.
        source_format: its format, as `CheckpointReader.format`.
        target: what can be opened now: a prefix, a file, or the index of several safetensors files.
        to: the format that was written.
        converted: tensors in the target.
        total: tensors in the source.
        filtered: keys that the filters left out.
        casts: one report per pair of types.
        nbytes: bytes of all files of the target.
        files: its files, as paths.
        kept: those that an earlier conversion had finished and that were kept.
        already: the target was there, equal to what would have been written; nothing was written.
        verified: the target was read back and compared.
        durability: what the target survives.
        notes: what else to know, one sentence each.
    """

    source: str
    source_format: str
    target: str
    to: TargetFormat
    converted: int
    total: int
    filtered: tuple[str, ...]
    casts: tuple[CastReport, ...]
    nbytes: int
    files: tuple[str, ...]
    kept: tuple[str, ...]
    already: bool
    verified: bool
    durability: Durability
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return asdict(self)
