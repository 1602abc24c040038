"""What a check looks at: one directory with its names grouped, and how thoroughly to look."""

from __future__ import annotations

import re
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING

from openckpt.errors import CheckpointError
from openckpt.findings import Progress
from openckpt.formats.names import parse_v1_shard_name
from openckpt.limits import DEFAULT_LIMITS, Limits
from openckpt.opening.listing import Group, Listing
from openckpt.storage import Store

if TYPE_CHECKING:
    from openckpt.formats.hdf5.child import HDF5Child

_STEP = re.compile(r"-(-?\d+)\Z", re.ASCII)


@dataclass(frozen=True, slots=True)
class Scene:
    """One directory under examination.

    Attributes:
        store: where it lies.
        listing: its names, grouped.
        quick: whether tensor data stays unread.
        limits: caps against hostile files.
        progress: told about long work.
        child: the process in which libhdf5 parses, so that its crash is a finding; None lets it parse in this one.
        is_export: whether this is the ``variables`` of a SavedModel, which has neither manifest nor meta graphs.
        nesting: how many archives are around it.
    """

    store: Store
    listing: Listing
    quick: bool = False
    limits: Limits = DEFAULT_LIMITS
    progress: Progress | None = None
    child: HDF5Child | None = None
    is_export: bool = False
    nesting: int = 0

    @property
    def directory(self) -> str:
        """The directory as shown to people; "." for the current one."""
        return self.store.display(self.listing.directory) or "."

    def path(self, name: str) -> str:
        """Return the path of a name in this directory, as shown to people."""
        return self.store.display(self.store.join(self.listing.directory, name))

    def show(self, group: Group) -> str:
        """Return the prefix of a group as shown to people; "./" for an empty name in the current directory."""
        return self.store.display(group.prefix) or "./"


def refusal(error: OSError) -> str:
    """Return what the system said, for a message that has the place already."""
    return f"the system refused: {error.strerror or error}"


def stem_of(group: Group) -> str:
    """Return the name without its step: what the saves of one run have in common."""
    part = parse_v1_shard_name(group.name)
    name = group.name if part is None else part[0]
    return _STEP.sub("-", name) if group.step is not None else name


def read_small(store: Store, path: str, most: int) -> bytes | None:
    """Return the bytes of a file, None where it is larger than ``most`` or cannot be read."""
    try:
        with closing(store.open(path)) as source:
            return source.read_at(0, source.size) if source.size <= most else None
    except (CheckpointError, OSError):
        return None
