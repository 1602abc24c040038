"""The file's side of a restore: its object graph, the whole one where openckpt wrote two."""

from __future__ import annotations

from typing import TYPE_CHECKING

from openckpt.errors import MismatchError, Where
from openckpt.formats.objectgraph import ObjectGraph, parse_graph_value
from openckpt.training.recording import FULL_GRAPH_KEY

if TYPE_CHECKING:
    from openckpt.opening import CheckpointReader


def has_graph(stored: CheckpointReader) -> bool:
    """Return whether an opened checkpoint was saved by objects, and not by names."""
    return FULL_GRAPH_KEY in stored or stored.graph is not None


def graph_of(stored: CheckpointReader) -> ObjectGraph:
    """Return the object graph of an opened checkpoint.

    Raises:
        MismatchError: it was written by name (``training.no-graph``).
        FormatError: the graph cannot be read.
    """
    if FULL_GRAPH_KEY in stored:
        return parse_graph_value(stored[FULL_GRAPH_KEY], Where(stored.prefix, FULL_GRAPH_KEY))
    graph = stored.graph
    if graph is None:
        raise MismatchError(
            "training.no-graph",
            stored.prefix,
            "this checkpoint has no object graph, so its values have names and no places",
        )
    return graph
