"""Before anything happens: what a restore will read and take, and whether a directory can be saved to."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from openckpt.storage.commit import Commit
from openckpt.storage.temporary import lock_name, temporary_name
from openckpt.storage.writable import Durability, WritableStore
from openckpt.training.binding import Binding, bind
from openckpt.training.byname import match_names
from openckpt.training.restoring import batches_of, check_values
from openckpt.training.selecting import keep_part
from openckpt.training.stored import graph_of, has_graph
from openckpt.writing.keys import refuse_url
from openckpt.writing.place import settle_dead

if TYPE_CHECKING:
    from openckpt.training.binding import Bound
    from openckpt.training.live import LiveGraph
    from openckpt.training.restoring import Checked

_STEM = "openckpt-preflight"
_CHECKING_BYTES = 24 << 20
"""what the first pass reads into: 16 MiB for large tensors, and the index"""
_CASTING_BYTES = 4 << 20
"""what finding the largest error of casts takes"""


@dataclass(frozen=True, slots=True)
class RestorePlan:
    """What a restore would do; sizes in bytes.

    Attributes:
        path: the checkpoint.
        values: how many stored values would be assigned; those for which lists and dicts are still to grow are not counted.
        nbytes: of these values; they are read twice, once to check them and once to assign them.
        kept_nbytes: new memory that stays: slots that the program has not made yet, abstract targets.
        replaced_nbytes: new memory that takes the place of old: JAX arrays and others that cannot be changed.
        peak_nbytes: the most that is needed at one time beyond what the program holds now. Objects whose state is one piece
            (``state_dict``) may take more inside of themselves.
    """

    path: str
    values: int
    nbytes: int
    kept_nbytes: int
    replaced_nbytes: int
    peak_nbytes: int

    def __str__(self) -> str:
        return (
            f"{self.path}: {self.values} values, {_mib(self.nbytes)} to check and read; at most {_mib(self.peak_nbytes)} of "
            f"memory beyond the program's own, {_mib(self.kept_nbytes)} stay and {_mib(self.replaced_nbytes)} take the "
            "place of old"
        )


@dataclass(frozen=True, slots=True)
class Preflight:
    """What was found out about a directory by doing there what a save does, and undoing it.

    Attributes:
        directory: where.
        nbytes: of one save of the program as it is now.
        free_bytes: what may still be written there; None where nobody knows.
        durability: what saves there will survive.
        locks_hold: whether a second writer would be kept out.
    """

    directory: str
    nbytes: int
    free_bytes: int | None
    durability: Durability
    locks_hold: bool

    def __str__(self) -> str:
        free = "unknown" if self.free_bytes is None else _mib(self.free_bytes)
        locks = "" if self.locks_hold else "; locks do not hold there, so nothing keeps a second writer out"
        return f"{self.directory}: a save takes {_mib(self.nbytes)}, {free} free, survives {self.durability}{locks}"


def _mib(nbytes: int) -> str:
    return f"{nbytes / (1 << 20):,.1f} MiB"


def plan_restore(
    path: str | os.PathLike[str], live: LiveGraph, *, select: str | None = None, cast: bool = False
) -> RestorePlan:
    """Return what a restore into live objects would do; no tensor is read and nothing assigned. Raises as a restore."""
    from openckpt.opening import open

    with open(path) as stored:
        if has_graph(stored):
            graph = graph_of(stored)
            binding = bind(keep_part(graph, select, stored.prefix) if select else graph, live)
        else:
            binding = Binding(values=match_names(stored, live, select)[0])
        return _plan(stored.prefix, check_values(stored, binding, cast=cast))


def _plan(path: str, checked: Checked) -> RestorePlan:
    def size(key: str) -> int:
        return checked.specs[key].nbytes or 0

    kept = replaced = 0
    largest = 0  # of the batches: what is read into arrays first
    for batch in batches_of(checked.specs, checked.values):
        copied: dict[str, int] = {}
        new = 0  # the largest that is made of a copy, while both are there
        for bound in batch:
            is_cast = checked.cast_to(bound) is not None
            own = _own_nbytes(bound) if is_cast else size(bound.key)
            if getattr(bound.leaf, "is_to_come", False):
                kept += own
                new = max(new, own if is_cast else 0)
            elif not getattr(bound.leaf, "in_place", True):
                replaced += own
                new = max(new, own if is_cast else 0)
            else:
                spec, lent = checked.specs[bound.key], bound.leaf.buffer()
                if lent is None or lent.shape != spec.shape:
                    new = max(new, own)
                elif lent.dtype == spec.numpy_dtype:
                    continue
            copied[bound.key] = size(bound.key)
        largest = max(largest, sum(copied.values()) + new)
    states = sum(size(key) for own, below in checked.states.values() for key in (own, *below.values()))
    nbytes = sum(size(bound.key) for bound in checked.values) + states
    values = len(checked.values) + len(checked.states)
    # The states come first, and each is decoded from a copy; then batch after batch.
    work = 0 if checked.casts is None else _CASTING_BYTES
    peak = max(_CHECKING_BYTES, 2 * states, kept + replaced + largest + work)
    return RestorePlan(path, values, nbytes, kept, replaced, peak)


def _own_nbytes(bound: Bound) -> int:
    spec = bound.leaf.spec()
    return 0 if spec is None else spec.nbytes or 0


class _FoundOut(Exception):
    """Ends a commit that was to prove something, and undoes it."""


def preflight(
    store: WritableStore, directory: str, nbytes: int, *, saves: int = 1, durability: Durability = "power-loss"
) -> Preflight:
    """Do in a directory what a save does - make it, lock, write, sync, rename - and undo all of it.

    Args:
        store: where it is.
        directory: its path.
        nbytes: that one save takes.
        saves: how many of them there must be room for.
        durability: what saves will ask for.

    Raises:
        ConflictError: another program does the same there now (``commit.locked``).
        UnsupportedError: the directory is a URL (``writing.prefix``).
        OSError: a save would fail with it: there is no room (ENOSPC), no permission; a note names the call.
    """
    refuse_url(store, directory)
    found: Preflight | None = None
    try:
        with Commit(store, directory, _STEM, durability=durability, settle=settle_dead) as commit:
            commit.require_space(nbytes * saves)
            # A name that no reader looks for, and that the next save sweeps should this process die now.
            commit.publish({commit.put(b"\0" * 4096): temporary_name(_STEM, 1)})
            second = store.try_lock(store.join(directory, lock_name(_STEM)))
            if second is not None:
                store.close(second)
            found = Preflight(directory, nbytes, store.free_bytes(directory), commit.durability, second is None)
            raise _FoundOut
    except _FoundOut:
        pass
    assert found is not None
    return found
