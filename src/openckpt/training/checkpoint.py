"""`Checkpoint`: live objects saved and restored as ``tf.train.Checkpoint`` does, and its files (formats 6.3, 6.7)."""

from __future__ import annotations

import dataclasses
import os
import warnings
from collections.abc import Callable, Collection, Mapping
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, overload

from openckpt.errors import ConflictError, MismatchError, PartialRestoreWarning, shown
from openckpt.formats.collecting import collection_held
from openckpt.formats.objectgraph import ObjectGraph, encode_object_graph
from openckpt.formats.spec import GRAPH_KEY, TensorSpec
from openckpt.storage.writable import Durability, WritableStore
from openckpt.training.adapters import view_of
from openckpt.training.adapters.plain import as_child
from openckpt.training.background import SaveHandle, Saving, Turn
from openckpt.training.binding import Binding, bind
from openckpt.training.byname import NameBasedStatus, restore_by_name
from openckpt.training.config import CONFIG_KEY, compare_config, encode_config, explain, stored_text
from openckpt.training.counter import SAVE_COUNTER, Counter, Counting, find_root_counter
from openckpt.training.deferred import Claims, Deferral
from openckpt.training.delta import Delta, frozen_keys
from openckpt.training.live import LiveGraph, LiveNode
from openckpt.training.recording import FULL_GRAPH_KEY, Recorded, record, values_of
from openckpt.training.report import forgotten_optimizers, make_report, unresolved_ids, variables_of
from openckpt.training.restoring import assign_values, check_values, prove_values, replace_objects
from openckpt.training.selecting import keep_part
from openckpt.training.snapshot import HostBuffers, take_snapshot
from openckpt.training.status import CheckpointLoadStatus, InitializationOnlyStatus, Unsaid, say_now
from openckpt.training.stored import graph_of, has_graph
from openckpt.training.tracking import Bare, Child, View
from openckpt.writing import SavedPath, save
from openckpt.writing.manifests import ManifestUpdate, only_manifest

if TYPE_CHECKING:
    from openckpt.opening import CheckpointReader
    from openckpt.training.planning import Preflight, RestorePlan

Put: TypeAlias = Callable[[Mapping[str, Any]], SavedPath]
"""Saves values by key, on whatever thread."""


class Checkpoint:
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
        for name in children:
            if name.startswith("_") or hasattr(type(self), name) or name in _OWN:
                raise ValueError(f"a child cannot be called {name!r}: that is a name of Checkpoint's own")
        self._root = root
        self._config, self._provenance = config, provenance
        self._children = dict(sorted(children.items()))
        self._own_counter: Counter | None = None
        self._written: set[str] = set()
        self._unsaid: Unsaid | None = None
        self._deferrals: list[Deferral] = []
        """of restores whose values wait for something, the newest last"""
        self._claims, self._restores = Claims(), 0
        self._saving, self._turn, self._buffers = Saving(), Turn(), HostBuffers()
        self._saves, self._delta = 0, Delta()
        self.restored_step: int | None = None
        """the number of the checkpoint that was restored last"""
        self._root_view()  # raises what is wrong with the names

    def __getattr__(self, name: str) -> Any:
        try:
            return self.__dict__["_children"][name]
        except KeyError:
            raise AttributeError(f"this Checkpoint has no child {name!r}") from None

    def __setattr__(self, name: str, value: object) -> None:
        if name.startswith("_") or hasattr(type(self), name) or name in _OWN:
            super().__setattr__(name, value)
        else:
            self._children[name] = value

    def __delattr__(self, name: str) -> None:
        if name not in self._children:
            raise AttributeError(f"this Checkpoint has no child {name!r}")
        del self._children[name]

    def __openckpt_view__(self) -> View:
        """Return the view of a Checkpoint inside of another one: its children, the root as one of them."""
        root = [] if self._root is None else [Child("root", self._root)]
        children = sorted((*self._attached(), *root), key=lambda child: child.name)
        counter = [] if self._own_counter is None else [Child(SAVE_COUNTER, self._own_counter)]
        return View("Checkpoint", [*children, *counter], replace=self._replace, family="container")

    # -- the program --------------------------------------------------------------------------------------------------

    @property
    def save_counter(self) -> int:
        """How many times this was saved, restores included: the number of the last checkpoint."""
        counter = self._counter()
        return 0 if counter is None else counter.number

    @property
    def root(self) -> Any:
        """The root that was given, or its successor where a restore had to make a new object; None where there was none."""
        return self._root

    def _attached(self) -> list[Child]:
        return [as_child(name, value) for name, value in self._children.items()]

    def _live(self) -> LiveGraph:
        """Walk the program, after what waits for new parts of it was restored."""
        live = self._walk()
        self._deferrals = [deferral for deferral in self._deferrals if deferral.waits]
        replaced = [deferral.advance(live) for deferral in self._deferrals]
        return self._walk() if any(replaced) else live

    def _walk(self) -> LiveGraph:
        with collection_held():
            return LiveGraph(self if self._root is None else self._root, self._root_view())

    def _root_view(self) -> View:
        counter = [] if self._own_counter is None else [Child(SAVE_COUNTER, self._own_counter)]
        if self._root is None:
            return View("Checkpoint", [*self._attached(), *counter], replace=self._replace)
        view = view_of(self._root)
        if view is None or view.refused:
            raise ValueError(f"a {type(self._root).__name__} cannot be the root of a checkpoint")
        names = {child.name: child.value for child in view.children}
        for name, value in self._children.items():
            held = names.get(name, value)
            if held is not value and (not isinstance(held, Bare) or held.value is not value):
                raise ValueError(
                    f"the root has another child called {name!r}: call the keyword something else, or leave it out"
                )
        # TensorFlow hangs the root below itself as "root", and sorts it among the keywords (formats 6.3).
        attached = sorted([*self._attached(), Child("root", self._root)], key=lambda child: child.name)
        children = [*view.children, *(child for child in (*attached, *counter) if child.name not in names)]

        def replace(new: Mapping[str, object]) -> object:
            self._replace({name: item for name, item in new.items() if name in self._children})
            others = {name: item for name, item in new.items() if name in names}
            if others and view.replace is not None:
                self._root = view.replace(others)
            return self._root

        return dataclasses.replace(view, children=children, replace=replace)

    def _replace(self, new: Mapping[str, object]) -> object:
        for name, item in new.items():
            if name == "root":
                self._root = item
            else:
                self._children[name] = item
        return self

    def _counter(self, *, create: bool = False) -> Counting | None:
        """Return what counts the saves, None where nothing does yet; a root may have a counter of its own."""
        of_root = None if self._root is None else view_of(self._root)
        own = None if of_root is None else find_root_counter(of_root)
        if own is None and create and self._own_counter is None:
            self._own_counter = Counter()
            if self._deferrals:
                self._live()  # gives it the count of a file that was read before there was a counter
        return own or self._own_counter

    # -- saving -------------------------------------------------------------------------------------------------------

    @overload
    def save(
        self,
        prefix: str | os.PathLike[str],
        *,
        blocking: Literal[True] = True,
        timeout: float | None = None,
        delta: bool = False,
        frozen: Collection[str] = (),
        durability: Durability = "power-loss",
        store: WritableStore | None = None,
    ) -> SavedPath: ...

    @overload
    def save(
        self,
        prefix: str | os.PathLike[str],
        *,
        blocking: Literal[False],
        timeout: float | None = None,
        delta: bool = False,
        frozen: Collection[str] = (),
        durability: Durability = "power-loss",
        store: WritableStore | None = None,
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
            delta: do not write again what has not changed since the last save with ``delta``: the checkpoint refers to it by
                hard links to data files of that one, which may be deleted all the same. The result says how much
                (``.linked_nbytes``), or why nothing (``.why_full``).
            frozen: with ``delta``: what never changes, as the keys have it (``"model/encoder"``); looked at when it is first
                declared, and believed afterwards.
            durability: see `openckpt.save`.
            store: where to write; the local disk when not given.

        Raises:
            ConflictError: a checkpoint of that number exists and this Checkpoint did not write it (``training.exists``), or
                somebody else is saving it (``commit.locked``).
            UnsupportedError: something cannot be saved (``training.*``, ``writing.*``); named with its path.
            TimeoutError: the save before is still under way.
            OSError: as the system says; nothing has changed then, the counter neither. Of what fails in the background the
                number stays counted, and is not used again.
        """
        with self._turn.taken(timeout) as left:
            self._saving.settle(left)
            counter = self._counter(create=True)
            assert counter is not None
            counter.number += 1
            path = f"{os.fspath(prefix)}-{counter.number}"
            try:
                newest = only_manifest(os.path.basename(path))
                put = partial(
                    self._put_numbered,
                    path,
                    overwrite=path in self._written,
                    update_manifest=lambda _: newest,
                    durability=durability,
                    store=store,
                    frozen=frozen if delta else None,
                )
                if blocking:
                    return self._write(path, put, frozen=frozen)
                return self._write_behind(path, put, frozen=frozen)
            except BaseException:
                counter.number -= 1
                raise

    def sync(self, timeout: float | None = None) -> None:
        """Return when no save is under way; raise why the last one failed, if nobody has heard it yet.

        Raises:
            TimeoutError: it goes on after so many seconds.
            CheckpointError, OSError: as `save`.
        """
        self._saving.settle(timeout)

    def _count_to(self, number: int) -> None:
        """Make this the save counter, for a manager that numbers the saves."""
        counter = self._counter(create=True)
        assert counter is not None
        counter.number = number

    @overload
    def write(
        self,
        prefix: str | os.PathLike[str],
        *,
        blocking: Literal[True] = True,
        timeout: float | None = None,
        delta: bool = False,
        frozen: Collection[str] = (),
        durability: Durability = "power-loss",
        store: WritableStore | None = None,
    ) -> SavedPath: ...

    @overload
    def write(
        self,
        prefix: str | os.PathLike[str],
        *,
        blocking: Literal[False],
        timeout: float | None = None,
        delta: bool = False,
        frozen: Collection[str] = (),
        durability: Durability = "power-loss",
        store: WritableStore | None = None,
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
        with self._turn.taken(timeout) as left:
            self._saving.settle(left)
            path = os.fspath(prefix)
            put = partial(
                self._put,
                path,
                overwrite=True,
                update_manifest=False,
                durability=durability,
                store=store,
                frozen=frozen if delta else None,
            )
            if blocking:
                return self._write(path, put, frozen=frozen)
            return self._write_behind(path, put, frozen=frozen)

    def _write(
        self, path: str, put: Put, beside: Mapping[str, bytes] | None = None, frozen: Collection[str] = ()
    ) -> SavedPath:
        """Save the live values by ``put``, and return when it has."""
        self._say_unsaid()
        with collection_held():
            live = self._live()
            recorded = record(live)
            self._buffers.frozen &= frozen_keys(recorded.leaves, frozen, path)
            values = self._described(recorded, live, values_of(recorded, path), beside or {}, path)
        nbytes = sum(getattr(value, "nbytes", 0) for value in values.values())
        try:
            with collection_held(when=len(values) > 64 and nbytes < 256 << 20):
                return put(values)
        finally:
            live.release()

    def _write_behind(
        self, path: str, put: Put, beside: Mapping[str, bytes] | None = None, frozen: Collection[str] = ()
    ) -> SaveHandle:
        """Copy the live values and let ``put`` save them in the background."""
        self._say_unsaid()
        with collection_held():
            live = self._live()
            recorded = record(live)
            fixed = frozen_keys(recorded.leaves, frozen, path)
            copied = take_snapshot(recorded.leaves, path, self._buffers, fixed)
            values = self._described(recorded, live, copied, beside or {}, path)
            live.release()
        return self._saving.start(path, partial(put, values))

    def _put(
        self,
        path: str,
        values: Mapping[str, Any],
        *,
        overwrite: bool,
        update_manifest: ManifestUpdate | bool,
        durability: Durability,
        store: WritableStore | None,
        frozen: Collection[str] | None = None,
    ) -> SavedPath:
        """Write values that nobody changes; touches no live object, for it may run on another thread."""
        if frozen is None:
            saved = save(
                path,
                values,
                overwrite=overwrite,
                durability=durability,
                update_manifest=update_manifest,
                store=store,
            )
        else:
            saved = self._delta.save(
                path,
                values,
                frozen_keys(values, frozen, path),
                overwrite=overwrite,
                durability=durability,
                update_manifest=update_manifest,
                store=store,
            )
        self._written.add(path)
        self._saves += 1
        return saved

    def _put_numbered(self, path: str, values: Mapping[str, Any], **options: Any) -> SavedPath:
        try:
            return self._put(path, values, **options)
        except ConflictError as error:
            if error.code != "commit.exists":
                raise
            raise ConflictError("training.exists", path, "a checkpoint of this number is there already") from None

    def _described(
        self, recorded: Recorded, live: LiveGraph, values: dict[str, Any], beside: Mapping[str, bytes], path: str
    ) -> dict[str, Any]:
        """Return what is to be stored: the values, and what says whose they are."""
        if recorded.full_graph is not None:
            values[FULL_GRAPH_KEY] = encode_object_graph(recorded.full_graph)
        values.update(beside)
        if self._config is not None or self._provenance:
            values[CONFIG_KEY] = encode_config(self._config, live, provenance=self._provenance, path=path)
        values[GRAPH_KEY] = encode_object_graph(recorded.graph)  # the last, as TensorFlow's (formats 2.12)
        return values

    def _forget(self) -> None:
        """What was declared frozen gets other values now."""
        self._delta.forget()
        self._buffers.frozen = frozenset()

    def _say_unsaid(self) -> None:
        """Give the warning of a restore whose status the program still holds, before its answer is overtaken."""
        unsaid, self._unsaid = self._unsaid, None
        say_now(unsaid, 4)

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

        recorded = record(self._live())
        specs = [leaf.spec() for leaf in recorded.leaves.values()]
        nbytes = sum(spec.nbytes or 0 for spec in specs if spec is not None)
        nbytes += len(encode_object_graph(recorded.full_graph or recorded.graph)) * 2
        return preflight(store or DISK, os.fspath(directory), nbytes, saves=saves, durability=durability)

    # -- restoring ----------------------------------------------------------------------------------------------------

    def restore(
        self,
        path: str | os.PathLike[str] | None,
        *,
        select: str | None = None,
        partial: bool = False,
        cast: bool = False,
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

        Raises:
            NotFoundError: the checkpoint has no such part (``training.no-such-part``).
            MismatchError: no variable matches (``training.nothing-matched``), or values do not fit (``training.mismatch``).
            PathNotFoundError, FormatError, OSError: as `openckpt.open`.
        """
        if path is None:
            return InitializationOnlyStatus()
        with self._turn.taken():
            self._saving.wait()
            self._forget()
            is_first = self._counter() is None
            self._counter(create=True)
            try:
                return self._restore(os.fspath(path), select, partial=partial, cast=cast)
            except BaseException:
                if is_first:
                    self._own_counter = None
                raise

    def read(
        self, path: str | os.PathLike[str], *, select: str | None = None, partial: bool = False, cast: bool = False
    ) -> CheckpointLoadStatus | NameBasedStatus | InitializationOnlyStatus:
        """Restore as `restore` does, but make no save counter where there is none yet: the first save does, and goes on
        counting from the file's.
        """
        with self._turn.taken():
            self._saving.wait()
            self._forget()
            return self._restore(os.fspath(path), select, partial=partial, cast=cast)

    def plan_restore(self, path: str | os.PathLike[str], *, cast: bool = False) -> RestorePlan:
        """Return what `restore` would read and how much memory it would take; nothing is assigned. Raises as `restore`."""
        from openckpt.training.planning import plan_restore

        return plan_restore(path, self._live(), cast=cast)

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
                    self.restored_step = stored.step
                    return by_name
                live = self._live()
                graph = graph_of(stored)
                if select:
                    graph = keep_part(graph, select, stored.prefix)
                binding = bind(graph, live)
                binding.is_stock = FULL_GRAPH_KEY not in stored
                if self._config is not None and CONFIG_KEY in stored:
                    binding.differences = compare_config(stored_text(stored[CONFIG_KEY]), self._config, stored.prefix)
                try:
                    checked = check_values(stored, binding, cast=cast)
                    variables = variables_of(live, binding)
                    if variables and not partial and checked.nodes().isdisjoint(variables):
                        raise _nothing_matched(stored, graph, live, len(variables))
                except MismatchError as error:
                    explain(error, binding.differences)
                    raise
                specs = _specs_of_unresolved(stored, graph, binding)
                if checked.torn and not partial:
                    warnings.warn(
                        f"{stored.prefix}: {'; '.join(checked.torn[:4])}", PartialRestoreWarning, stacklevel=3
                    )
                if not checked.is_light:
                    held.close()
                prove_values(stored, checked)
                changed = assign_values(stored, checked)
                self.restored_step = stored.step
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
            if (
                not partial
                and not select
                and (0 < len(unbound) < len(variables) or forgotten_optimizers(graph, binding, live))
            ):
                self._unsaid = status.warn_unless_expected(str(make_report(path, graph, binding, live, unbound, specs)))
            return status

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


def _nothing_matched(stored: CheckpointReader, graph: ObjectGraph, live: LiveGraph, count: int) -> MismatchError:
    names = [child.local_name for child in graph.nodes[0].children if child.local_name != SAVE_COUNTER]
    own = [name for name, _, _ in live.nodes[0].children if name != SAVE_COUNTER]
    return MismatchError(
        "training.nothing-matched",
        stored.prefix,
        f"none of the {count} variables of the program is in the checkpoint, so nothing was restored",
        expected=f"objects called {shown(names)}",
        found=f"objects called {shown(own)}",
    )


_OWN = frozenset(("restored_step",))


def _specs_of_unresolved(stored: CheckpointReader, graph: ObjectGraph, binding: Binding) -> dict[int, TensorSpec]:
    specs = {}
    for node_id in unresolved_ids(graph, binding)[:1000]:  # they are candidates for names; nobody reads more
        key = graph.nodes[node_id].attributes[0].checkpoint_key
        if key in stored:
            specs[node_id] = stored.specs[key]
    return specs
