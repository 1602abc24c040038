"""The saves of one program: one at a time, and what each leaves for the next.

    Checkpoint.save, .write     say where, and number it      \\
    CheckpointManager.save      lists and sweeps beside that  /   Saves.run   walk, record, take the values, or copy them
                                                                  put         write them: at once, or on another thread

A save in the background works on a copy, in memory that is kept for the next one (`openckpt.training.snapshot`).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias, TypedDict

from openckpt.errors import ConflictError
from openckpt.formats.collecting import collection_held
from openckpt.formats.objectgraph import encode_object_graph
from openckpt.formats.spec import GRAPH_KEY
from openckpt.storage.writable import Durability, WritableStore
from openckpt.training.background import SaveHandle, Saving, Turn
from openckpt.training.config import CONFIG_KEY, encode_config
from openckpt.training.delta import Delta, frozen_keys
from openckpt.training.recording import FULL_GRAPH_KEY, Recorded, record, values_of
from openckpt.training.snapshot import HostBuffers, take_snapshot
from openckpt.writing import SavedPath, save
from openckpt.writing.manifests import ManifestUpdate, only_manifest

if TYPE_CHECKING:
    from openckpt.training.live import LiveGraph

Put: TypeAlias = Callable[[Mapping[str, Any]], SavedPath]
"""Saves values by key, on whatever thread."""

_FEW_VALUES = 64
_MUCH_DATA = 256 << 20  # bytes: their writing takes so long that the garbage collector should not wait for it


class SaveOptions(TypedDict, total=False):
    """The keywords of `openckpt.Checkpoint.save` beside ``blocking``, for its overloads."""

    timeout: float | None
    delta: bool
    frozen: Collection[str]
    durability: Durability
    store: WritableStore | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """What a program says of itself beside its values: see `openckpt.Checkpoint`."""

    made_from: object = None
    provenance: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Where values go, and how: arguments of `openckpt.save`, and what a delta save need not look at (None: a full save)."""

    path: str
    overwrite: bool
    update_manifest: ManifestUpdate | bool
    durability: Durability
    store: WritableStore | None
    frozen: Collection[str] | None


class Saves:
    """What the saves of one program have in common.

    Attributes:
        turn: which thread works with the program's values.
        saving: the save that goes on in the background.
        written: the prefixes that were saved, which may be overwritten.
        count: how many saves have ended well.
    """

    def __init__(self) -> None:
        self.turn, self.saving = Turn(), Saving()
        self.written: set[str] = set()
        self.count = 0
        self._buffers, self._delta = HostBuffers(), Delta()

    @contextmanager
    def next(self, timeout: float | None = None) -> Iterator[None]:
        """Have the turn for a save, when the one before has ended; raises its failure, where nobody has heard it yet."""
        with self.turn.taken(timeout) as left:
            self.saving.settle(left)
            yield

    @contextmanager
    def paused(self, timeout: float | None = None) -> Iterator[None]:
        """Have the turn to change the program's values: nothing is under way, and nothing is known to be unchanged.

        Raises:
            TimeoutError: a save goes on after so many seconds.
        """
        with self.turn.taken(timeout) as left:
            self.saving.wait(left)
            self._delta.forget()
            self._buffers.frozen = frozenset()
            yield

    def restored(self, prefix: str) -> None:
        """Know from which checkpoint the values are."""
        self._delta.restored(prefix)

    def run(
        self,
        path: str,
        walk: Callable[[], LiveGraph],
        config: Config,
        put: Put,
        *,
        blocking: bool,
        frozen: Collection[str] = (),
        beside: Mapping[str, bytes] | None = None,
    ) -> SavedPath | SaveHandle:
        """Have ``put`` write the values of a program as they are now.

        Args:
            path: the checkpoint.
            walk: the program.
            config: what it says of itself.
            put: writes them.
            blocking: return when it has; else as soon as they are copied.
            frozen: what the program declares unchanged.
            beside: more values, by key.
        """
        with collection_held():  # what was walked is gone again before the collector comes to look at it
            values = self._values_now(path, walk, config, beside or {}, blocking=blocking, frozen=frozen)
        if not blocking:
            return self.saving.start(path, partial(_put_encoded, put, values))
        nbytes = sum(getattr(value, "nbytes", 0) for value in values.values())
        with collection_held(when=len(values) > _FEW_VALUES and nbytes < _MUCH_DATA):
            return _put_encoded(put, values)

    def _values_now(
        self,
        path: str,
        walk: Callable[[], LiveGraph],
        config: Config,
        beside: Mapping[str, bytes],
        *,
        blocking: bool,
        frozen: Collection[str],
    ) -> dict[str, Any]:
        """Return what is to be stored: the memory of the program itself for a save that it waits for, else copies.

        The graphs among them are still to be encoded, which the program need not wait for.
        """
        live = walk()
        try:
            recorded = record(live)
            unchanged = frozen_keys(recorded.leaves, frozen, path)
            self._delta.declare(unchanged)
            if blocking:
                self._buffers.frozen &= unchanged
                values = values_of(recorded, path)
            else:
                values = take_snapshot(recorded.leaves, path, self._buffers, unchanged)
            _describe(values, recorded, live, config, beside, path)
            return values
        finally:
            live.release()

    def newest(self, path: str) -> ManifestUpdate:
        """Return what makes a checkpoint the newest of its manifest, which has no other."""

        def update(_: bytes | None) -> bytes:
            self.written.add(path)  # it is there now, whatever a signal handler may raise yet
            return only_manifest(os.path.basename(path))

        return update

    def put(self, target: Target, values: Mapping[str, Any]) -> SavedPath:
        """Write values that nobody changes; touches no live object, for it may run on another thread.

        Raises:
            ConflictError: there is another program's checkpoint (``training.exists``).
            CheckpointError, OSError: as `openckpt.save`.
        """
        path, frozen = target.path, target.frozen
        write = save if frozen is None else partial(self._delta.save, frozen=frozen_keys(values, frozen, path))
        try:
            saved = write(
                path,
                values,
                overwrite=target.overwrite,
                durability=target.durability,
                update_manifest=target.update_manifest,
                store=target.store,
            )
        except ConflictError as error:
            if error.code != "commit.exists":
                raise
            message = "a checkpoint of this number is there, and this program has not written it"
            raise ConflictError("training.exists", path, message) from None
        self.written.add(path)
        self.count += 1
        return saved


def _describe(
    values: dict[str, Any], recorded: Recorded, live: LiveGraph, config: Config, beside: Mapping[str, bytes], path: str
) -> None:
    """Add what says whose the values are."""
    if recorded.full_graph is not None:
        values[FULL_GRAPH_KEY] = recorded.full_graph
    values.update(beside)
    if config.made_from is not None or config.provenance:
        values[CONFIG_KEY] = encode_config(config.made_from, live, provenance=config.provenance, path=path)
    values[GRAPH_KEY] = recorded.graph  # the last, as TensorFlow's (formats 2.12)


def _put_encoded(put: Put, values: dict[str, Any]) -> SavedPath:
    for key in (FULL_GRAPH_KEY, GRAPH_KEY):
        if key in values:
            values[key] = encode_object_graph(values[key])
    return put(values)
