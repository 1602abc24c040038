"""What a restore did: TensorFlow's status object, exact in its conditions (formats 6.8), and readable.

`CheckpointLoadStatus` looks at the program anew whenever it is asked, because objects may have been built since.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from openckpt.errors import NotMatchedError, Where, shown
from openckpt.formats.objectgraph import ObjectGraph
from openckpt.training.binding import Binding
from openckpt.training.live import Identity, LiveGraph, LiveNode

SAVE_COUNTER = "save_counter"


@dataclass(frozen=True, slots=True)
class RestoreReport:
    """The same in plain values.

    Attributes:
        path: the checkpoint.
        bound: variables of the program that have a value from the file.
        variables: variables of the program, the save counter not counted.
        unbound: readable names of variables of the program that got no value.
        unresolved: readable names of stored values that no object of the program took.
        unused: readable names of stored attributes that the bound object cannot take.
        waiting: how many stored values wait for objects that are not there yet.
    """

    path: str
    bound: int
    variables: int
    unbound: tuple[str, ...]
    unresolved: tuple[str, ...]
    unused: tuple[str, ...]
    waiting: int

    def __str__(self) -> str:
        text = f"{self.path}: bound {self.bound} of {self.variables} variables"
        if self.unbound:
            text += f"; without a value: {shown(self.unbound)}"
        if self.unresolved:
            text += f"; stored and not used: {shown(self.unresolved)}"
        if self.unused:
            text += f"; attributes that nothing takes: {shown(self.unused)}"
        return text


class CheckpointLoadStatus:
    """The outcome of one restore. Every ``assert_*`` returns the status itself or raises `NotMatchedError`."""

    def __init__(
        self,
        path: str,
        graph: ObjectGraph,
        binding: Binding,
        live: Callable[[], LiveGraph],
        restored: set[Identity],
        *,
        keep: object = None,
    ) -> None:
        self.path = path
        self._graph, self._binding, self._live = graph, binding, live
        self._restored = restored
        """the live objects whose values this restore assigned"""
        self._keep = keep  # what those identities belong to
        self._partial = False

    # -- TensorFlow's questions ---------------------------------------------------------------------------------------

    def assert_existing_objects_matched(self) -> CheckpointLoadStatus:
        """Raise unless every object of the program that has values got them from the file."""
        unbound = self._unbound(self._live())
        if unbound:
            raise self._failure(
                f"found {len(unbound)} objects of the program that were not bound to stored values: "
                f"{shown([node.label() for node in unbound])}"
            )
        return self

    def assert_consumed(self) -> CheckpointLoadStatus:
        """Raise unless everything in the file has its object in the program, and every object its value."""
        unresolved = self._unresolved()
        if unresolved:
            raise self._failure(f"stored values that no object of the program took: {shown(unresolved)}")
        if self._binding.slots:
            raise self._failure(f"{len(self._binding.slots)} stored slot variables wait for their optimizer")
        unused = self._unused()
        if unused:
            raise self._failure(f"stored attributes that nothing takes: {shown(unused)}")
        return self.assert_existing_objects_matched()

    def assert_nontrivial_match(self) -> CheckpointLoadStatus:
        """Raise unless something beside the root was matched."""
        if len(self._binding.nodes) <= 1:
            has_values = any(True for _ in self._live().leaves())
            raise self._failure("nothing but the root was matched" if has_values else "there is nothing to load into")
        return self

    def expect_partial(self) -> CheckpointLoadStatus:
        """Say that the rest of the file is not wanted; no warning will come."""
        self._partial = True
        return self

    def run_restore_ops(self, session: object = None) -> CheckpointLoadStatus:
        """Values are assigned at once: nothing to do."""
        return self

    def initialize_or_restore(self, session: object = None) -> CheckpointLoadStatus:
        """Values are assigned at once: nothing to do."""
        return self

    # -- ours ---------------------------------------------------------------------------------------------------------

    @property
    def report(self) -> RestoreReport:
        """What was matched and what was not, as it stands now."""
        live = self._live()
        unbound = self._unbound(live)
        counted = [node for node in live.holders() if not is_counter(node)]
        return RestoreReport(
            self.path,
            len([node for node in counted if node not in unbound]),
            len(counted),
            tuple(node.label() for node in unbound if not is_counter(node)),
            tuple(self._unresolved()),
            tuple(self._unused()),
            len(self._binding.deferred) + len(self._binding.slots),
        )

    def __str__(self) -> str:
        return str(self.report)

    def _failure(self, message: str) -> NotMatchedError:
        return NotMatchedError("training.not-matched", self.path, message)

    def _unbound(self, live: LiveGraph) -> list[LiveNode]:
        return [node for node in live.holders() if node.identity() not in self._restored]

    def _unresolved(self) -> list[str]:
        bound = self._binding.nodes
        return [
            self._graph.name(node_id)
            for node_id, node in enumerate(self._graph.nodes)
            if node_id not in bound and any(not attribute.is_optional for attribute in node.attributes)
        ]

    def _unused(self) -> list[str]:
        return [f"{self._graph.name(node_id)} ({attribute})" for node_id, attribute in self._binding.unused]


def is_counter(node: LiveNode) -> bool:
    """Return whether this is the save counter, which every Checkpoint has and nobody counts."""
    return node.parent is not None and node.parent[1] == SAVE_COUNTER and node.parent[0].number == 0


class InitializationOnlyStatus:
    """The status of a restore from None: there was no checkpoint (formats 6.8)."""

    def assert_consumed(self) -> InitializationOnlyStatus:
        """Always raise."""
        raise self._failure()

    def assert_existing_objects_matched(self) -> InitializationOnlyStatus:
        """Always raise."""
        raise self._failure()

    def assert_nontrivial_match(self) -> InitializationOnlyStatus:
        """Always raise."""
        raise self._failure()

    def run_restore_ops(self, session: object = None) -> InitializationOnlyStatus:
        """Always raise."""
        raise self._failure()

    def initialize_or_restore(self, session: object = None) -> InitializationOnlyStatus:
        """Variables have their initial values: nothing to do."""
        return self

    def expect_partial(self) -> InitializationOnlyStatus:
        """Nothing was expected."""
        return self

    def _failure(self) -> NotMatchedError:
        return NotMatchedError("training.no-checkpoint", Where(""), "no checkpoint was given, so nothing was restored")
