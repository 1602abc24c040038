"""What a save returns."""

from __future__ import annotations

from openckpt.storage.writable import Durability


class SavedPath(str):
    """The prefix of a checkpoint that was saved, as text for any function that takes one.

    Attributes:
        step: the number in the last part of the prefix (``ckpt-7`` -> 7), or None.
        durability: what the save survives for certain: ``"power-loss"``, or ``"process-crash"`` where that was asked for or the
            file system cannot promise more.
        nbytes: bytes of all files together.
        linked_nbytes: those of them that were not written: they lie in data files shared with an earlier checkpoint.
        why_full: why a delta save has written everything; "" where it has not, and of other saves.
    """

    step: int | None
    durability: Durability
    nbytes: int
    linked_nbytes: int
    why_full: str

    def __new__(
        cls,
        path: str,
        *,
        step: int | None,
        durability: Durability,
        nbytes: int,
        linked_nbytes: int = 0,
        why_full: str = "",
    ) -> SavedPath:
        """Make one; a path with facts."""
        self = super().__new__(cls, path)
        self.step, self.durability, self.nbytes = step, durability, nbytes
        self.linked_nbytes, self.why_full = linked_nbytes, why_full
        return self

    def __getnewargs_ex__(self) -> tuple[tuple[str], dict[str, object]]:
        # Results travel between processes.
        facts = {"step": self.step, "durability": self.durability, "nbytes": self.nbytes}
        return (str(self),), {**facts, "linked_nbytes": self.linked_nbytes, "why_full": self.why_full}
