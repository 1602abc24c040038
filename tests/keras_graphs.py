"""The names of the architectures of `keras_models`, which nobody can import before a backend is chosen, and how their graphs are compared."""

from __future__ import annotations

from typing import Any

from openckpt.formats.objectgraph import ObjectGraph

ARCHITECTURES = (
    "sequential sequential_without_input functional shared_layers nested_models batch_normalization_and_dropout "
    "bidirectional stacked_cells attention_and_embedding wrapped_layers subclassed lists dicts tuples "
    "layers_made_in_build seeds_and_metrics_of_its_own functional_subclass moving_averages loss_scaling "
    "gradient_accumulation learning_rate_schedule compiled_metrics mixed_precision sixty_four_bits adapted_normalization"
).split()


def shape_of(graph: ObjectGraph) -> tuple[dict[str, str], list[tuple[str, str, str]]]:
    """Return the keys of every valued node's attributes, and every edge between valued nodes; nodes by their first way."""
    names = {0: ""}
    order = [0]
    edges = []
    for number in order:
        for child in graph.nodes[number].children:
            if not graph.nodes[child.node_id].has_checkpoint_values:
                continue
            if child.node_id not in names:
                names[child.node_id] = f"{names[number]}/{child.local_name}"
                order.append(child.node_id)
            edges.append((names[number], child.local_name, names[child.node_id]))
    keys = {
        f"{names[number]} {attribute.name}": attribute.checkpoint_key
        for number in order
        for attribute in graph.nodes[number].attributes
    }
    return keys, sorted(edges)


def check_waiting(case: dict[str, Any]) -> None:
    """Check one case of `keras_waiting`: every variable has its value, and nothing waits or is wrapped any more."""
    assert case["variables"] >= 5
    assert case == {**case, "waited": True, "wrong": [], "wrapped": [], "waiting": 0}
