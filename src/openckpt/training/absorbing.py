"""Objects whose state is one piece (``state_dict``, random generators): all of them get theirs, or none does.

What such an object thinks of a state is known only when it has been given it. The ones before it, and it itself, get their old
state back when one refuses.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Protocol

from openckpt.errors import UnsupportedError
from openckpt.training.live import LiveNode
from openckpt.training.tracking import PY_STATE, Bare

if TYPE_CHECKING:
    from openckpt.formats.spec import Array

_MOST_BYTES = 64 << 20  # of arrays that are copied so that an old state can come back


class Readable(Protocol):
    """What is needed of an opened checkpoint."""

    def read_many(self, keys: Iterable[str]) -> dict[str, Array]:
        """Return values, checksums checked."""
        ...


def absorb_states(stored: Readable, states: Mapping[LiveNode, tuple[str, Mapping[str, str]]]) -> dict[LiveNode, object]:
    """Give objects their stored state; return those that are another object now.

    Args:
        stored: the opened checkpoint.
        states: node -> ``(key of its JSON, keys of its arrays by name)``.

    Raises:
        Exception: what an object raises that does not take its state; the others have their old state again then.
    """
    changed: dict[LiveNode, object] = {}
    undo: list[Callable[[], object]] = []
    try:
        for node, (key, below) in states.items():
            absorb = node.view.absorb
            assert absorb is not None
            found = stored.read_many([key, *below.values()])
            undo.append(_way_back(node))
            new = absorb(found[key].item(), {name: found[array] for name, array in below.items()})
            if new is not node.object:
                changed[node] = new
    except BaseException as error:
        for back in reversed(undo):
            try:
                back()
            except Exception as second:
                error.add_note(f"and its old state could not be put back: {second!r}")
        raise
    return changed


def _way_back(node: LiveNode) -> Callable[[], object]:
    """Return what gives an object the state that it has now."""
    absorb = node.view.absorb
    try:
        text = next((leaf.value() for leaf in node.view.leaves if leaf.attribute == PY_STATE), None)
    except UnsupportedError:  # it stands for an object to come, and has no state
        return lambda: None
    arrays = {name: value.value for name, value, _ in node.view.children if isinstance(value, Bare)}
    if absorb is None or text is None or sum(array.nbytes for array in arrays.values()) > _MOST_BYTES:  # type: ignore[attr-defined]
        return lambda: None
    copies = {name: array.copy() for name, array in arrays.items()}  # type: ignore[attr-defined]
    return lambda: absorb(text, copies)
