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
    """

    step: int | None
    durability: Durability
    nbytes: int

    def __new__(cls, path: str, *, step: int | None, durability: Durability, nbytes: int) -> SavedPath:
        """Make one; a path with facts."""
        self = super().__new__(cls, path)
        self.step, self.durability, self.nbytes = step, durability, nbytes
        return self

    def __getnewargs_ex__(self) -> tuple[tuple[str], dict[str, object]]:
        # Results travel between processes.
        return (str(self),), {"step": self.step, "durability": self.durability, "nbytes": self.nbytes}
