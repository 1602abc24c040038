"""What waits after a restore: stored values of objects that the program has not made yet (formats 6.6, item 4).

    position    (live object, name of the child that it does not have yet, node of the file)
    resolved    when the child is there: the part of the file below is matched, checked and assigned as in a restore
    noticed     by the object itself, where its adapter can (a Keras layer's ``build``), or the Checkpoint whose child it is; else
                by the next question to the status. A save gives nothing any more: what it finds has newer values, and it says so

As long as something waits, the opened checkpoint stays open, so that its files may be swept meanwhile. Of several restores each
waits on its own, and none touches what a newer one has assigned.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

from openckpt.errors import CheckpointError, MismatchError, PartialRestoreWarning, warn
from openckpt.formats.objectgraph import ObjectGraph
from openckpt.training.adapters import view_of
from openckpt.training.binding import Binding, Deferred, bind_more
from openckpt.training.config import explain
from openckpt.training.live import Identity, LiveGraph, LiveNode
from openckpt.training.restoring import assign_values, check_values, prove_values, replace_objects
from openckpt.training.tracking import Bare

if TYPE_CHECKING:
    from openckpt.opening import CheckpointReader


class Claims:
    """Which of several restores has assigned an object last, while any of them still waits."""

    def __init__(self) -> None:
        self._restore: dict[Identity, int] = {}
        self._keep: list[object] = []  # what the identities belong to, so that none is given away

    def claim(self, nodes: Iterable[LiveNode], restore: int) -> None:
        """Remember that a restore has assigned these."""
        for node in nodes:
            self._restore[node.identity()] = restore
            if not isinstance(node.object, Bare):
                self._keep.append(node.object)

    def is_newer(self, node: LiveNode, restore: int) -> bool:
        """Return whether a newer restore has assigned this object."""
        return self._restore.get(node.identity(), 0) > restore


class Deferral:
    """The part of one restore that waits.

    Args:
        stored: the opened checkpoint; closed when nothing waits any more, or nobody who could wait is left.
        graph: what it holds.
        binding: what has been matched; goes on growing here.
        restored: the live objects that got values; goes on growing here.
        keep: all objects of the program, so that none of their ids is given away.
        claims: of all restores of the same `openckpt.Checkpoint`.
        number: of this restore among them.
        cast: restore floats of other widths.
    """

    def __init__(
        self,
        stored: CheckpointReader,
        graph: ObjectGraph,
        binding: Binding,
        restored: set[LiveNode],
        *,
        keep: list[object],
        claims: Claims,
        number: int,
        cast: bool,
    ) -> None:
        self._stored, self._graph, self._binding = stored, graph, binding
        self._restored, self._keep = restored, keep
        self._matched = {node.identity() for node in binding.nodes.values()}
        self._cast = cast
        self._claims, self._number = claims, number
        self._stops: dict[int, Callable[[], None]] = {}
        self._close = weakref.finalize(self, stored.close)
        self._listen()

    @property
    def waits(self) -> bool:
        """Whether anything still waits."""
        return bool(self._binding.deferred or self._binding.slots)

    def end(self) -> None:
        """Stop waiting: unwrap methods, close the checkpoint."""
        for stop in self._stops.values():
            stop()
        self._stops.clear()
        self._close()

    def advance(self, live: LiveGraph, keywords: Container[str] = (), *, slots: bool = True) -> bool:
        """Give values to what has come, as far as it is in ``live``; return whether objects were replaced by new ones.

        Args:
            live: the program or a part of it.
            keywords: names of the Checkpoint's own children, beside those of an object that is its root.
            slots: whether those of optimizers are looked for.

        Raises:
            MismatchError, NotFoundError, CorruptionError: as a restore; of this part nothing has been assigned then.
        """
        known = self._known(live)
        self._let_go(known, keywords)
        starts = _come(self._binding.deferred, known)
        if not starts and not (slots and self._binding.slots):
            return False
        taken = [node for node in live.nodes if node.identity() in self._matched]
        found = bind_more(self._graph, live, self._binding, starts, taken, skip_slots=not slots)
        if not found.nodes:
            return False
        found.values = [bound for bound in found.values if not self._claims.is_newer(bound.node, self._number)]
        try:
            checked = check_values(self._stored, found, cast=self._cast)
            prove_values(self._stored, checked)
        except CheckpointError as error:
            refused = {node_id for node_id, _ in starts}  # said once, and not at every walk from now on
            self._drop(position for position in self._binding.deferred if position.node_id in refused)
            if isinstance(error, MismatchError):
                explain(error, self._binding.differences)
            raise
        replaced = replace_objects(live, assign_values(self._stored, checked))
        live.settle(replaced)
        self._take(found, live, checked.nodes(), with_slots=slots)
        return bool(replaced)

    def pass_over(self, live: LiveGraph, keywords: Container[str] = ()) -> list[str]:
        """Wait no more for what the program has made without telling, and return what that is called.

        A save finds such objects long after they were made, with values that are newer than the file's.
        """
        known = self._known(live)
        self._let_go(known, keywords)
        come = dict(_come(self._binding.deferred, known))
        self._drop(position for position in self._binding.deferred if position.node_id in come)
        return [node.label() for node in come.values()]

    def _known(self, live: LiveGraph) -> dict[Identity, LiveNode]:
        """Return the nodes of a walk for whose children something waits."""
        waiting = {position.parent.identity() for position in self._binding.deferred}
        return {identity: node for node in live.nodes if (identity := node.identity()) in waiting}

    def _drop(self, positions: Iterable[Deferred]) -> None:
        late = set(positions)
        if late:
            self._binding.deferred[:] = [position for position in self._binding.deferred if position not in late]
            self._listen()
            if not self.waits:
                self.end()

    def _let_go(self, known: Mapping[Identity, LiveNode], keywords: Container[str]) -> None:
        """Wait no more for what the program has made itself where it can only be replaced: that is newer than the file's.

        A number, text, an array of JAX; and plain values of every kind in an object that is the root.
        """
        nodes = self._graph.nodes
        late = []
        for position in self._binding.deferred:
            parent = known.get(position.parent.identity())
            target = None if parent is None else parent.names.get(position.name)
            if parent is None or target is None or position.parent.view.kind == "Checkpoint":
                continue
            is_keyword = parent.number == 0 and position.name in keywords
            if not is_keyword and (nodes[position.node_id].is_plain or type(target.object) is Bare):
                late.append(position)
        self._drop(late)

    def _take(self, found: Binding, live: LiveGraph, got: Iterable[LiveNode], *, with_slots: bool) -> None:
        binding = self._binding
        binding.nodes.update(found.nodes)
        binding.deferred[:] = [
            position for position in (*binding.deferred, *found.deferred) if position.node_id not in binding.nodes
        ]
        if with_slots:
            binding.slots[:] = found.slots
        binding.unused += found.unused
        self._matched.update(node.identity() for node in found.nodes.values())
        self._restored.update(got)
        self._claims.claim(got, self._number)
        self._keep += live.keep()
        self._listen()
        if not self.waits:
            self.end()

    def _listen(self) -> None:
        """Hear from every object for which something waits, and from no other."""
        wanted = {id(owner.object): owner for owner in _owners(self._binding)}
        for number in [number for number in self._stops if number not in wanted]:
            self._stops.pop(number)()
        for number, owner in wanted.items():
            if number not in self._stops and owner.view.waits is not None:
                self._stops[number] = owner.view.waits(partial(self._heard, owner))

    def _heard(self, owner: LiveNode) -> None:
        view = view_of(owner.object)
        if view is None or not self.waits:
            return
        try:
            self.advance(LiveGraph(owner.object, view, owner.parent))
        except CheckpointError as error:
            # Keras tries out in silence whether a layer can be built by a call, and would take this for a no.
            warn(f"what waited for {owner.label()} was not restored: {error}", PartialRestoreWarning)
            raise


def _come(positions: Sequence[Deferred], known: dict[Identity, LiveNode]) -> list[tuple[int, LiveNode]]:
    """Return the positions that have their object now, in the order of the program: so TensorFlow came across them."""
    come = []
    for position in positions:
        parent = known.get(position.parent.identity())
        target = None if parent is None else parent.names.get(position.name)
        if parent is not None and target is not None:
            place = next(number for number, (name, _, _) in enumerate(parent.children) if name == position.name)
            come.append((parent.number, place, position.node_id, target))
    return [(node_id, target) for _, _, node_id, target in sorted(come, key=lambda one: one[:3])]


def _owners(binding: Binding) -> Iterable[LiveNode]:
    """Yield the objects that will hear of children for which something waits."""
    for position in binding.deferred:
        node: LiveNode | None = position.parent
        while node is not None and node.view.waits is None:
            node = None if node.parent is None else node.parent[0]
        if node is not None:
            yield node
    for record in binding.slots:
        optimizer = binding.nodes.get(record.optimizer_id)
        if optimizer is not None and optimizer.view.waits is not None:
            yield optimizer
