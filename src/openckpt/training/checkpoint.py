"""`Checkpoint`: live objects saved and restored as ``tf.train.Checkpoint`` does, and its files (formats 6.3, 6.7)."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from openckpt.errors import ConflictError, MismatchError, PartialRestoreWarning, shown
from openckpt.formats.objectgraph import ObjectGraph, encode_object_graph, parse_object_graph
from openckpt.formats.spec import GRAPH_KEY, TensorSpec
from openckpt.storage.writable import Durability, WritableStore
from openckpt.training.adapters import view_of
from openckpt.training.adapters.plain import as_child
from openckpt.training.binding import bind
from openckpt.training.leaves import refusal_of
from openckpt.training.live import Identity, LiveGraph
from openckpt.training.recording import FULL_GRAPH_KEY, record, values_of
from openckpt.training.restoring import assign_values, check_values, prove_values, replace_objects
from openckpt.training.status import SAVE_COUNTER, CheckpointLoadStatus, InitializationOnlyStatus, is_counter
from openckpt.training.tracking import VARIABLE_VALUE, Child, View
from openckpt.writing import SavedPath, save
from openckpt.writing.manifests import only_manifest

if TYPE_CHECKING:
    from openckpt.formats.spec import Array
    from openckpt.opening import CheckpointReader


class Checkpoint:
    """Saves and restores live objects by name.

        ckpt = openckpt.Checkpoint(model=model, optimizer=optimizer, epoch=0)
        path = ckpt.save("run/ckpt")                # run/ckpt-1, in the manifest of run/
        ckpt.restore(openckpt.latest_checkpoint("run")).assert_consumed()

    Args:
        root: an object that is the root of the graph itself, so that its parts have no name in front.
        children: what to save, by name: Keras, PyTorch and JAX objects, TensorFlow's, dicts, lists, dataclasses, arrays,
            numbers, text. They are attributes of the Checkpoint; a number or another value that cannot be changed in place is
            new there after a restore.
    """

    def __init__(self, root: object = None, **children: object) -> None:
        for name in children:
            if name.startswith("_") or hasattr(type(self), name):
                raise ValueError(f"a child cannot be called {name!r}: that is a name of Checkpoint's own")
        self._root = root
        self._children = dict(sorted(children.items()))
        self._counter: _Counter | None = None
        self._written: set[str] = set()
        self.restored_step: int | None = None

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

    # -- the program --------------------------------------------------------------------------------------------------

    @property
    def save_counter(self) -> int:
        """How many times this was saved, restores included: the number of the last checkpoint."""
        return 0 if self._counter is None else self._counter.number

    def _live(self) -> LiveGraph:
        return LiveGraph(self if self._root is None else self._root, self._root_view())

    def _root_view(self) -> View:
        own = [as_child(name, value) for name, value in self._children.items()]
        counter = [] if self._counter is None else [Child(SAVE_COUNTER, self._counter)]
        if self._root is None:
            return View("Checkpoint", [*own, *counter], replace=self._replace)
        view = view_of(self._root)
        if view is None:
            raise ValueError(f"a {type(self._root).__name__} cannot be the root of a checkpoint")
        names = {child.name: child.value for child in view.children}
        for name, value in self._children.items():
            if name in names and names[name] is not value:
                raise ValueError(f"the root has another child called {name!r}")
        # TensorFlow hangs the root below itself as "root", and sorts it among the keywords (formats 6.3).
        attached = sorted([*own, Child("root", self._root)], key=lambda child: child.name)
        view.children = [*view.children, *(child for child in (*attached, *counter) if child.name not in names)]
        replace = view.replace

        def replace_any(new: Mapping[str, object]) -> object:
            mine = {name: item for name, item in new.items() if name in self._children}
            self._replace(mine)
            others = {name: item for name, item in new.items() if name not in mine}
            return replace(others) if others and replace is not None else self._root

        view.replace = replace_any
        return view

    def _replace(self, new: Mapping[str, object]) -> object:
        self._children.update(new)
        return self

    # -- saving -------------------------------------------------------------------------------------------------------

    def save(
        self,
        prefix: str | os.PathLike[str],
        *,
        durability: Durability = "power-loss",
        store: WritableStore | None = None,
    ) -> SavedPath:
        """Count up, save as ``PREFIX-<counter>`` and make that the newest in the directory's manifest.

        Raises:
            ConflictError: a checkpoint of that number exists and this Checkpoint did not write it (``training.exists``), or
                somebody else is saving it (``commit.locked``).
            UnsupportedError: something cannot be saved (``training.*``, ``writing.*``); named with its path.
            OSError: as the system says; nothing has changed then, the counter neither.
        """
        counter = self._count()
        counter.number += 1
        path = f"{os.fspath(prefix)}-{counter.number}"
        try:
            return self._write(path, path in self._written, True, durability, store)
        except BaseException as error:
            counter.number -= 1
            if isinstance(error, ConflictError) and error.code == "commit.exists":
                raise ConflictError("training.exists", path, "a checkpoint of this number is there already") from None
            raise

    def write(
        self,
        prefix: str | os.PathLike[str],
        *,
        durability: Durability = "power-loss",
        store: WritableStore | None = None,
    ) -> SavedPath:
        """Save under exactly this prefix, over what is there; no counter, no manifest. Raises as `save`."""
        return self._write(os.fspath(prefix), True, False, durability, store)

    def _count(self) -> _Counter:
        if self._counter is None:
            self._counter = _Counter()
        return self._counter

    def _write(
        self, path: str, overwrite: bool, newest: bool, durability: Durability, store: WritableStore | None
    ) -> SavedPath:
        recorded = record(self._live())
        values = values_of(recorded, path)
        if recorded.full_graph is not None:
            values[FULL_GRAPH_KEY] = encode_object_graph(recorded.full_graph)
        values[GRAPH_KEY] = encode_object_graph(recorded.graph)  # the last, as TensorFlow's (formats 2.12)
        saved = save(
            path,
            values,
            overwrite=overwrite,
            durability=durability,
            update_manifest=(lambda _: only_manifest(os.path.basename(path))) if newest else False,
            store=store,
        )
        self._written.add(path)
        return saved

    # -- restoring ----------------------------------------------------------------------------------------------------

    def restore(
        self, path: str | os.PathLike[str] | None, *, partial: bool = False, cast: bool = False
    ) -> CheckpointLoadStatus | InitializationOnlyStatus:
        """Give the live objects their stored values, matched by name from the root; the save counter too.

        Everything is checked first - keys, types, shapes, checksums - and nothing assigned unless all of it holds.

        Args:
            path: whatever `openckpt.open` takes; None restores nothing, as TensorFlow does.
            partial: allow that some or all variables of the program get no value; without it, none at all is an error and some
                are a warning.
            cast: restore floats of other widths.

        Raises:
            MismatchError: no variable matches (``training.nothing-matched``), or values do not fit (``training.mismatch``).
            PathNotFoundError, FormatError, OSError: as `openckpt.open`.
        """
        if path is None:
            return InitializationOnlyStatus()
        self._count()
        return self._restore(os.fspath(path), partial=partial, cast=cast)

    def read(
        self, path: str | os.PathLike[str], *, partial: bool = False, cast: bool = False
    ) -> CheckpointLoadStatus | InitializationOnlyStatus:
        """Restore as `restore` does, but leave the save counter alone where there is none yet."""
        return self._restore(os.fspath(path), partial=partial, cast=cast)

    def _restore(self, path: str, *, partial: bool, cast: bool) -> CheckpointLoadStatus:
        from openckpt.opening import open

        with open(path) as stored:
            graph = _graph_of(stored)
            live = self._live()
            binding = bind(graph, live)
            checked = check_values(stored, binding, cast=cast)
            self._check_matched(stored, graph, live, checked.nodes(), partial=partial)
            prove_values(stored, checked)
            changed = assign_values(stored, checked)
            self.restored_step = stored.step
        live.settle(replace_objects(live, changed))
        restored: set[Identity] = {node.identity() for node in checked.nodes()}
        status = CheckpointLoadStatus(path, graph, binding, self._live, restored, keep=live.keep())
        self._warn(status, partial=partial)
        return status

    def _check_matched(
        self, stored: CheckpointReader, graph: ObjectGraph, live: LiveGraph, bound: set[Any], *, partial: bool
    ) -> None:
        variables = [node for node in live.holders() if not is_counter(node)]
        if partial or not variables or any(node in bound for node in variables):
            return
        names = [child.local_name for child in graph.nodes[0].children if child.local_name != SAVE_COUNTER]
        own = [name for name, _, _ in live.nodes[0].children if name != SAVE_COUNTER]
        raise MismatchError(
            "training.nothing-matched",
            stored.prefix,
            f"none of the {len(variables)} variables of the program is in the checkpoint, so nothing was restored",
            expected=f"objects called {shown(names)}",
            found=f"objects called {shown(own)}",
        )

    def _warn(self, status: CheckpointLoadStatus, *, partial: bool) -> None:
        report = status.report
        if not partial and 0 < report.bound < report.variables:
            warnings.warn(str(report), PartialRestoreWarning, stacklevel=4)


_OWN = frozenset(("restored_step",))


def _graph_of(stored: CheckpointReader) -> ObjectGraph:
    if FULL_GRAPH_KEY in stored:
        return parse_object_graph(stored[FULL_GRAPH_KEY].item(), stored.prefix)
    graph = stored.graph
    if graph is None:
        raise MismatchError(
            "training.no-graph",
            stored.prefix,
            "this checkpoint has no object graph, so its values have names and no places",
        )
    return graph


class _Counter:
    """The save counter: an int64 variable of the graph."""

    def __init__(self) -> None:
        self.number = 0

    def __openckpt_view__(self) -> View:
        return View("save counter", leaves=(_CounterLeaf(self),), family="container")


class _CounterLeaf:
    """Its value."""

    attribute = VARIABLE_VALUE
    full_name = SAVE_COUNTER

    def __init__(self, counter: _Counter) -> None:
        self._counter = counter

    def spec(self) -> TensorSpec | None:
        return _INT64

    def value(self) -> Any:
        return self._counter.number

    def refusal(self, stored: TensorSpec, *, cast: bool) -> str | None:
        return refusal_of(_INT64, stored, cast=cast)

    def buffer(self) -> Array | None:
        return None

    def assign(self, value: Array) -> object:
        self._counter.number = int(value)
        return self._counter


_INT64 = TensorSpec("int64", (), 8)
