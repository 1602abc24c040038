"""`Checkpoint`: live objects saved and restored as ``tf.train.Checkpoint`` does, and its files (formats 6.3, 6.7)."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Literal, Unpack, overload

from openckpt.errors import MismatchError, PartialRestoreWarning, warn
from openckpt.formats.collecting import collection_held
from openckpt.formats.objectgraph import ObjectGraph, encode_object_graph
from openckpt.formats.objectpaths import split_path
from openckpt.storage.writable import Durability, WritableStore
from openckpt.training.background import SaveHandle
from openckpt.training.binding import Binding
from openckpt.training.byname import NameBasedStatus, restore_by_name
from openckpt.training.config import CONFIG_KEY, compare_config, explain, stored_text
from openckpt.training.deferred import Claims, Deferral
from openckpt.training.growing import bound_grown
from openckpt.training.live import LiveGraph, LiveNode
from openckpt.training.program import Program
from openckpt.training.recording import FULL_GRAPH_KEY, record
from openckpt.training.report import (
    forgotten_optimizers,
    make_report,
    nothing_matched,
    specs_of_unresolved,
    variables_of,
)
from openckpt.training.restoring import Checked, assign_values, check_values, prove_values, replace_objects
from openckpt.training.saves import Config, Put, SaveOptions, Saves, Target
from openckpt.training.selecting import keep_part
from openckpt.training.status import CheckpointLoadStatus, InitializationOnlyStatus, Unsaid, say_now
from openckpt.training.stored import graph_of, has_graph
from openckpt.writing import SavedPath

if TYPE_CHECKING:
    from openckpt.opening import CheckpointReader
    from openckpt.training.planning import Preflight, RestorePlan


class Checkpoint(Program):
    """Saves and restores live objects by name.

        ckpt = openckpt.Checkpoint(model=model, optimizer=optimizer, epoch=0)
        path = ckpt.save("run/ckpt")                # run/ckpt-1, in the manifest of run/
        ckpt.restore(openckpt.latest_checkpoint("run")).assert_consumed()

    Args:
        root: an object that is the root of the graph itself, so that its parts have no name in front.
        config: what the program is made from - numbers, text, lists, dicts, objects with ``get_config`` as Keras's - kept beside
            the weights, with the versions of the frameworks. Where a restore does not fit, what differs in it is said first.
        provenance: keep host, time and git commit too; equal programs do not make equal files then.
        children: what to save, by name: Keras, PyTorch and JAX objects, TensorFlow's, dicts, lists, dataclasses, arrays,
            numbers, text. They are attributes of the Checkpoint; a number or another value that cannot be changed in place is
            new there after a restore.
    """

    def __init__(
        self, root: object = None, *, config: object = None, provenance: bool = False, **children: object
    ) -> None:
        super().__init__(root, children)
        self._config = Config(made_from=config, provenance=provenance)
        self._saves = Saves()
        self._claims, self._restores = Claims(), 0
        self._restored_step: int | None = None
        self._unsaid: Unsaid | None = None

    @property
    def restored_step(self) -> int | None:
        """The number of the checkpoint that was restored last; None where it has none, or nothing was restored yet."""
        return self._restored_step

    # -- saving -------------------------------------------------------------------------------------------------------

    @overload
    def save(
        self, prefix: str | os.PathLike[str], *, blocking: Literal[True] = True, **options: Unpack[SaveOptions]
    ) -> SavedPath: ...

    @overload
    def save(
        self, prefix: str | os.PathLike[str], *, blocking: Literal[False], **options: Unpack[SaveOptions]
    ) -> SaveHandle: ...

    def save(
        self,
        prefix: str | os.PathLike[str],
        *,
        blocking: bool = True,
        timeout: float | None = None,
        delta: bool = False,
        frozen: Collection[str] = (),
        durability: Durability = "power-loss",
        store: WritableStore | None = None,
    ) -> SavedPath | SaveHandle:
        """Count up, save as ``PREFIX-<counter>`` and make that the newest in the directory's manifest.

        With ``blocking=False`` the values are copied, and the rest happens in the background: this returns a `SaveHandle`, and
        the program may change everything. One save at a time goes on; the next one waits for it, and raises its failure if
        nobody has asked the handle for it. A program that ends waits for it too.

        Args:
            prefix: front of the name.
            blocking: return when no crash can take the checkpoint away; else as soon as the values are copied, into memory
                that is kept for the next time.
            timeout: seconds to wait for a save that is under way.
            delta: do not write again what has not changed since the last save with ``delta``, or since a restore of a step in the
                same directory: the checkpoint refers to it by hard links to data files of that one, which may be deleted all
                the same. The result says how much (``.linked_nbytes``), or why nothing (``.why_full``).
            frozen: with ``delta``: what never changes, as the keys have it (``"model/encoder"``); looked at when it is first
                declared, and believed as long as every save declares it.
            durability: see `openckpt.save`.
            store: where to write; the local disk when not given.

        Raises:
            ConflictError: a checkpoint of that number exists and this Checkpoint did not write it (``training.exists``), or
                somebody else is saving it (``commit.locked``).
            UnsupportedError: something cannot be saved (``training.*``, ``writing.*``); named with its path.
            TimeoutError: the save before is still under way.
            OSError: as the system says; nothing has changed then, the counter neither. Of what fails in the background, or is
                interrupted, the number stays counted, and is not used again.
        """
        with self._saves.next(timeout):
            counter = self._make_counter()
            counter.number += 1
            path = f"{os.fspath(prefix)}-{counter.number}"

            try:
                target = Target(
                    path=path,
                    overwrite=path in self._saves.written,
                    update_manifest=self._saves.newest(path),
                    durability=durability,
                    store=store,
                    frozen=frozen if delta else None,
                )
                return self._save(path, partial(self._saves.put, target), blocking=blocking, frozen=frozen)
            except Exception:
                counter.number -= 1  # an interrupt may come when all is done: its number stays counted
                raise

    @overload
    def write(
        self, prefix: str | os.PathLike[str], *, blocking: Literal[True] = True, **options: Unpack[SaveOptions]
    ) -> SavedPath: ...

    @overload
    def write(
        self, prefix: str | os.PathLike[str], *, blocking: Literal[False], **options: Unpack[SaveOptions]
    ) -> SaveHandle: ...

    def write(
        self,
        prefix: str | os.PathLike[str],
        *,
        blocking: bool = True,
        timeout: float | None = None,
        delta: bool = False,
        frozen: Collection[str] = (),
        durability: Durability = "power-loss",
        store: WritableStore | None = None,
    ) -> SavedPath | SaveHandle:
        """Save under exactly this prefix, over what is there; no counter, no manifest. Arguments and errors as `save`."""
        path = os.fspath(prefix)
        target = Target(
            path=path,
            overwrite=True,
            update_manifest=False,
            durability=durability,
            store=store,
            frozen=frozen if delta else None,
        )
        with self._saves.next(timeout):
            return self._save(path, partial(self._saves.put, target), blocking=blocking, frozen=frozen)

    def _save(
        self,
        path: str,
        put: Put,
        *,
        blocking: bool,
        frozen: Collection[str],
        beside: Mapping[str, bytes] | None = None,
    ) -> SavedPath | SaveHandle:
        """Have ``put`` write what is live now; see `Saves.run`."""
        self._say_unsaid()
        return self._saves.run(
            path, self._live_to_save, self._config, put, blocking=blocking, frozen=frozen, beside=beside
        )

    def sync(self, timeout: float | None = None) -> None:
        """Return when no save is under way; raise why the last one failed, if nobody has heard it yet.

        Raises:
            TimeoutError: it goes on after so many seconds.
            CheckpointError, OSError: as `save`.
        """
        self._saves.saving.settle(timeout)

    def _say_unsaid(self) -> None:
        """Give the warning of a restore whose status the program still holds, before its answer is overtaken."""
        unsaid, self._unsaid = self._unsaid, None
        say_now(unsaid)

    def preflight(
        self,
        directory: str | os.PathLike[str],
        *,
        saves: int = 1,
        durability: Durability = "power-loss",
        store: WritableStore | None = None,
    ) -> Preflight:
        """Try out, before the first step, whether this can be saved into a directory: room, permissions, locks, syncs.

        Does there what a save does, and undoes it. Raises as `save` would.

        Args:
            directory: where checkpoints will lie; need not exist yet.
            saves: how many of them there must be room for at one time.
            durability: what the saves will ask for.
            store: where to write; the local disk when not given.
        """
        from openckpt.storage.disk import DISK
        from openckpt.training.planning import preflight

        live = self._live()
        recorded = record(live)
        specs = [leaf.spec() for leaf in recorded.leaves.values()]
        nbytes = sum(spec.nbytes or 0 for spec in specs if spec is not None)
        nbytes += len(encode_object_graph(recorded.full_graph or recorded.graph)) * 2
        live.release()
        return preflight(store or DISK, os.fspath(directory), nbytes, saves=saves, durability=durability)

    # -- restoring ----------------------------------------------------------------------------------------------------

    def restore(
        self,
        path: str | os.PathLike[str] | None,
        *,
        select: str | None = None,
        partial: bool = False,
        cast: bool = False,
        timeout: float | None = None,
    ) -> CheckpointLoadStatus | NameBasedStatus | InitializationOnlyStatus:
        """Give the live objects their stored values, matched by name from the root; the save counter too. Waits for a save that
        is under way.

        Everything is checked first - keys, types, shapes, checksums - and nothing assigned unless all of it holds. A checkpoint
        without an object graph (of a `Saver`, of `openckpt.save`) is matched by the names of variables (formats 6.9).

        Args:
            path: whatever `openckpt.open` takes; None restores nothing, as TensorFlow does.
            select: names from the root to the part that is restored, with "/" between: ``"model/encoder"``; the rest of the
                program stays as it is, and nothing is warned of.
            partial: allow that some or all variables of the program get no value; without it, none at all is an error and some
                are a warning.
            cast: restore floats of other widths; the status' report says the largest error.
            timeout: seconds to wait for a save that is under way.

        Raises:
            TimeoutError: it goes on; nothing was restored.
            NotFoundError: the checkpoint has no such part (``training.no-such-part``).
            MismatchError: no variable matches (``training.nothing-matched``), or values do not fit (``training.mismatch``).
            PathNotFoundError, FormatError, OSError: as `openckpt.open`.
        """
        if path is None:
            return InitializationOnlyStatus()
        with self._saves.paused(timeout):
            is_first = self._counter() is None
            self._make_counter()
            try:
                return self._restore(os.fspath(path), select, partial=partial, cast=cast)
            except BaseException:
                if is_first:
                    self._own_counter = None
                raise

    def read(
        self,
        path: str | os.PathLike[str],
        *,
        select: str | None = None,
        partial: bool = False,
        cast: bool = False,
        timeout: float | None = None,
    ) -> CheckpointLoadStatus | NameBasedStatus | InitializationOnlyStatus:
        """Restore as `restore` does, but make no save counter where there is none yet: the first save does, and goes on
        counting from the file's.
        """
        with self._saves.paused(timeout):
            return self._restore(os.fspath(path), select, partial=partial, cast=cast)

    def plan_restore(
        self, path: str | os.PathLike[str], *, select: str | None = None, cast: bool = False
    ) -> RestorePlan:
        """Return what `restore` would read and how much memory it would take; nothing is assigned. Arguments and errors as there."""
        from openckpt.training.planning import plan_restore

        live = self._live()
        try:
            return plan_restore(path, live, select=select, cast=cast)
        finally:
            live.release()

    def _restore(
        self, path: str, select: str | None, *, partial: bool, cast: bool
    ) -> CheckpointLoadStatus | NameBasedStatus:
        from openckpt.opening import open

        self._say_unsaid()
        with ExitStack() as held:
            held.enter_context(collection_held())  # to the end, where there is little to read
            with ExitStack() as files:
                stored = files.enter_context(open(path))
                if not has_graph(stored):
                    held.close()
                    by_name = restore_by_name(stored, self._live, select=select, partial=partial, cast=cast)
                    self._restored_step, self._unsaid = stored.step, by_name.unsaid
                    return by_name
                graph = graph_of(stored)
                if select:
                    graph = keep_part(graph, select, stored.prefix)
                with bound_grown(graph, self._live(), self._live) as (live, binding):
                    binding.part = split_path(select) if select else ()
                    checked, variables = self._check(stored, graph, live, binding, partial=partial, cast=cast)
                    specs = specs_of_unresolved(stored.specs, graph, binding)
                    if checked.torn and not partial:
                        warn(f"{stored.prefix}: {'; '.join(checked.torn[:4])}", PartialRestoreWarning)
                    if not checked.is_light:
                        held.close()
                    prove_values(stored, checked)
                    changed = assign_values(stored, checked)
                self._restored_step = stored.step
                self._saves.restored(stored.prefix)
                if binding.deferred or binding.slots:
                    files.pop_all()  # the files stay open as long as something waits for values in them
            live.settle(replace_objects(live, changed))
            binding.values.clear()  # they hold the old values of what was replaced
            restored = checked.nodes()
            self._wait(stored, graph, binding, live, restored, cast=cast)
            status = CheckpointLoadStatus(
                path, graph, binding, self._live, restored, specs, keep=live.keep(), casts=checked.casts
            )
            unbound = [node for node in variables if node not in restored]
            is_partial = 0 < len(unbound) < len(variables) or bool(forgotten_optimizers(graph, binding, live))
            if is_partial and not partial and not select:
                status.warn_unless_expected(str(make_report(path, graph, binding, live, unbound, specs)))
                self._unsaid = status.unsaid
            return status

    def _check(
        self,
        stored: CheckpointReader,
        graph: ObjectGraph,
        live: LiveGraph,
        binding: Binding,
        *,
        partial: bool,
        cast: bool,
    ) -> tuple[Checked, list[LiveNode]]:
        """Return what will be assigned, checked but for its bytes, and the variables of the program that expect a value."""
        binding.is_stock = FULL_GRAPH_KEY not in stored
        config = self._config.made_from
        if config is not None and CONFIG_KEY in stored:
            binding.differences = compare_config(stored_text(stored[CONFIG_KEY]), config, stored.prefix)
        try:
            checked = check_values(stored, binding, cast=cast)
            variables = variables_of(live, binding)
            if variables and not partial and checked.nodes().isdisjoint(variables):
                raise nothing_matched(stored.prefix, graph, live, len(variables))
        except MismatchError as error:
            explain(error, binding.differences)
            raise
        return checked, variables

    def _wait(
        self,
        stored: CheckpointReader,
        graph: ObjectGraph,
        binding: Binding,
        live: LiveGraph,
        restored: set[LiveNode],
        *,
        cast: bool,
    ) -> None:
        """Remember what waits for objects that the program has not made yet."""
        self._restores += 1
        if not self._deferrals:
            self._claims = Claims()
        waits = bool(binding.deferred or binding.slots)
        if waits or self._deferrals:
            self._claims.claim(restored, self._restores)
        if waits:
            keep, claims, number = live.keep(), self._claims, self._restores
            self._deferrals.append(
                Deferral(stored, graph, binding, restored, keep=keep, claims=claims, number=number, cast=cast)
            )
