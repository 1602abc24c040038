"""The values of resolving: `Target`, what a path means, and `How` it was understood."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from openckpt.findings import Progress
    from openckpt.limits import Limits
    from openckpt.storage import ByteSource, Store

HowKind = Literal[
    "prefix", "member", "file", "pattern", "manifest", "scan", "incomplete", "manifest-file", "saved-model", "below"
]


class How(NamedTuple):
    """How a path was understood.

    Attributes:
        kind: ``prefix``: it is one; ``member``: a file of the checkpoint was named; ``file``: the file is the checkpoint;
            ``pattern``: shards of V1; ``manifest``, ``scan``, ``incomplete``: a directory, see
            `openckpt.opening.choosing.Choice`; ``manifest-file``: the manifest itself was named; ``saved-model``: a
            SavedModel's variables; ``below``: found below the directory or archive that was named.
        reason: the same in a sentence, for people.
    """

    kind: HowKind
    reason: str

    def __str__(self) -> str:
        return self.reason


class Target(NamedTuple):
    """What a path means: a format's reader opens ``path`` in ``store``.

    Attributes:
        siblings: paths that open something else of the same name: a file and a prefix may share one.
        archives: the open archives around it; whoever is done with the checkpoint closes them.
    """

    store: Store
    path: str
    format: str
    how: How
    siblings: tuple[str, ...] = ()
    archives: tuple[ByteSource, ...] = ()

    @property
    def display(self) -> str:
        """The path as shown to people; "./" for the prefix of an empty name in the current directory."""
        return self.store.display(self.path) or "./"


class Context(NamedTuple):
    """What goes along on the way to a checkpoint."""

    limits: Limits
    progress: Progress | None
    opened: list[ByteSource]  # by every archive that was entered
    archives: int = 0  # how many archives we are inside of
