"""What a restore did: TensorFlow's status object, exact in its conditions (formats 6.8), and readable.

`CheckpointLoadStatus` looks at the program anew whenever it is asked, because objects may have been built since.

                                          raises when                                                    TensorFlow's
    assert_existing_objects_matched       an object with values is bound to no node of the file          the same
    assert_consumed                       also: a node with values is bound to no object, a slot
                                          waits, an attribute of the file has no taker                   the same
    assert_nontrivial_match               nothing but the root is bound                                  the same

An object may be bound and yet get no value, where the file's node has none: TensorFlow's questions do not see that, the report
does.
"""

from __future__ import annotations

import warnings
import weakref
from collections.abc import Callable, Iterable, Mapping
from typing import Self, TypeAlias

from openckpt.errors import NotMatchedError, PartialRestoreWarning, Where, shown, warn
from openckpt.formats.collecting import collection_held
from openckpt.formats.objectgraph import ObjectGraph
from openckpt.formats.spec import TensorSpec
from openckpt.training.binding import Binding
from openckpt.training.casting import Casts
from openckpt.training.live import Identity, LiveGraph, LiveNode
from openckpt.training.report import RestoreReport, make_report, unresolved_ids


class Outcome:
    """What the outcomes of all restores have.

    Attributes:
        path: the checkpoint.
        unsaid: the warning that is given when the program lets go of this; None where there is none.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.unsaid: Unsaid | None = None

    def expect_partial(self) -> Self:
        """Say that the rest of the file, or of the program, is not wanted; no warning will come."""
        if self.unsaid is not None:
            self.unsaid.detach()
            self.unsaid = None
        return self

    def run_restore_ops(self, session: object = None) -> Self:
        """Values are assigned at once: nothing to do."""
        return self

    def initialize_or_restore(self, session: object = None) -> Self:
        """Values are assigned at once: nothing to do."""
        return self

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self}>"

    def warn_unless_expected(self, text: str) -> None:
        """Give a `PartialRestoreWarning` when the program lets go of this status, unless it calls `expect_partial` before.

        Nearly always that is at once. Where the status is kept, the next save or restore says it, and the end of the program at
        the latest.
        """
        self.unsaid = weakref.finalize(self, _warn, text, 3)

    def _failure(self, message: str) -> NotMatchedError:
        self.expect_partial()  # the error says what the warning would
        return NotMatchedError("training.not-matched", self.path, message)


class CheckpointLoadStatus(Outcome):
    """The outcome of one restore. Every ``assert_*`` returns the status itself or raises `NotMatchedError`."""

    def __init__(
        self,
        path: str,
        graph: ObjectGraph,
        binding: Binding,
        live: Callable[[], LiveGraph],
        restored: Iterable[LiveNode],
        specs: Mapping[int, TensorSpec],
        *,
        keep: object = None,
        casts: Casts | None = None,
    ) -> None:
        super().__init__(path)
        self._casts = casts
        self._graph, self._binding, self._live = graph, binding, live
        self._restored_nodes = restored
        self._specs = specs
        self._keep = keep  # what those identities belong to

    @property
    def _restored(self) -> set[Identity]:
        """The live objects whose values this restore assigned."""
        with collection_held():
            return {node.identity() for node in self._restored_nodes}

    # -- TensorFlow's questions ---------------------------------------------------------------------------------------

    def assert_existing_objects_matched(self) -> CheckpointLoadStatus:
        """Raise unless every object of the program that has values is bound to a node of the file."""
        with collection_held():  # what was walked is gone again before the collector comes to look at it
            labels = self._not_bound()
        if labels:
            raise self._failure(
                f"found {len(labels)} objects of the program that were not bound to stored values: {shown(labels)}"
            )
        return self

    def _not_bound(self) -> list[str]:
        live = self._live()
        matched = {node.identity() for node in self._binding.nodes.values()}
        # Metrics and seeds are nothing that TensorFlow would ask about.
        needed = live.holders(optional=False, part=self._binding.part)
        labels = [node.label() for node in needed if node.identity() not in matched]
        live.release()
        return labels

    def assert_consumed(self) -> CheckpointLoadStatus:
        """Raise unless everything in the file has its object in the program, and every object its place in the file."""
        if self._binding.deferred or self._binding.slots:
            self._live().release()  # what has come since gets its values now
        unresolved = [self._graph.name(node_id) for node_id in unresolved_ids(self._graph, self._binding)]
        if unresolved:
            raise self._failure(f"stored values that no object of the program took: {shown(unresolved)}")
        if self._binding.slots:
            raise self._failure(f"{len(self._binding.slots)} stored slot variables wait for their optimizer")
        if self._binding.unused:
            unused = [f"{self._graph.name(node_id)} ({attribute})" for node_id, attribute in self._binding.unused]
            raise self._failure(f"stored attributes that nothing takes: {shown(unused)}")
        return self.assert_existing_objects_matched()

    def assert_nontrivial_match(self) -> CheckpointLoadStatus:
        """Raise unless something beside the root was matched."""
        if len(self._binding.nodes) <= 1:
            live = self._live()
            has_values = bool(self._holders(live))
            live.release()
            raise self._failure("nothing but the root was matched" if has_values else "there is nothing to load into")
        return self

    # -- ours ---------------------------------------------------------------------------------------------------------

    @property
    def report(self) -> RestoreReport:
        """What was matched and what was not, as it stands now."""
        live = self._live()
        restored = self._restored
        unbound = [node for node in self._holders(live) if node.identity() not in restored]
        report = make_report(self.path, self._graph, self._binding, live, unbound, self._specs, self._casts)
        live.release()
        return report

    def _holders(self, live: LiveGraph) -> list[LiveNode]:
        return live.holders(optional=not self._binding.is_stock, part=self._binding.part)

    def __str__(self) -> str:
        return str(self.report)


Unsaid: TypeAlias = "weakref.finalize[[str, int], Outcome]"
"""A warning that is still to be given."""


def say_now(unsaid: Unsaid | None) -> None:
    """Give a warning that was not given yet."""
    alive = None if unsaid is None else unsaid.detach()
    if alive is not None:
        warn(alive[2][0], PartialRestoreWarning)


def _warn(text: str, stacklevel: int) -> None:
    # 1 is this line, 2 that of weakref, 3 that of the program by which the status went.
    warnings.warn(text, PartialRestoreWarning, stacklevel=stacklevel)


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
