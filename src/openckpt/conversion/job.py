"""One conversion with everything decided: what `openckpt.conversion.converting` runs, and `finished` compares with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from openckpt.conversion.casting import Casting
from openckpt.conversion.planning import Plan
from openckpt.conversion.result import TargetFormat
from openckpt.conversion.targets import PREFIXES
from openckpt.formats.names import INDEX_SUFFIX, SAFETENSORS_SHARDS_SUFFIX

if TYPE_CHECKING:
    from openckpt.findings import Progress
    from openckpt.opening import CheckpointReader
    from openckpt.storage.writable import Durability, WritableStore


@dataclass(frozen=True, slots=True)
class Job:
    """The decisions; the arguments of `openckpt.convert` where nothing else is said.

    Attributes:
        ckpt: the opened source.
        plan: which tensors, as which types.
        target: the prefix, the file, or the index of many files.
        to: the format.
        casting: makes the casts and remembers what they changed.
        max_shard_size: see `openckpt.convert`.
        max_memory: see `openckpt.convert`.
        overwrite: see `openckpt.convert`.
        durability: see `openckpt.convert`.
        store: where to write.
        progress: told the bytes that are done.
    """

    ckpt: CheckpointReader
    plan: Plan
    target: str
    to: TargetFormat
    casting: Casting
    max_shard_size: int | None
    max_memory: int
    overwrite: bool
    durability: Durability
    store: WritableStore
    progress: Progress | None

    @property
    def is_many_files(self) -> bool:
        """Whether the target is the index of safetensors files."""
        return self.to == "safetensors" and self.target.endswith(SAFETENSORS_SHARDS_SUFFIX)

    @property
    def face(self) -> str:
        """The file by which the target is there."""
        return self.target + INDEX_SUFFIX if self.to in PREFIXES else self.target
