"""``openckpt tree``: the object graph, or the keys, as a tree. A shell over `CheckpointReader.graph`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain, islice
from typing import TYPE_CHECKING, NamedTuple

import click

from openckpt.cli import exits
from openckpt.cli.each import print_json, run_for_each, tensor_document
from openckpt.cli.outline import DEEPEST, Leaf, Outline, Slot, outline_of_graph, outline_of_names
from openckpt.cli.reading import open_checkpoint, print_heading
from openckpt.cli.settings import current_settings, general_options, json_option, paths_argument
from openckpt.cli.terminal import Screen
from openckpt.cli.text import cell_width, count_text, pad, shape_text, shorten
from openckpt.errors import printable

if TYPE_CHECKING:
    from openckpt.opening import CheckpointReader

_WIDEST_LEFT = 56
"""columns from which on dtypes are no longer aligned"""
_ALIGNED = 10_000
"""lines that decide where dtypes stand; the rest of a larger tree is drawn as it comes"""
_LONGEST_PATH = 400
"""columns of a path to which an edge refers"""
_VALUE = "VARIABLE_VALUE"


@click.command("tree", short_help="Draw the object graph with its tensors and optimizer slots.")
@paths_argument
@click.option(
    "--depth", type=click.IntRange(min=0), default=DEEPEST, show_default=True, metavar="N",
    help="Draw this many levels; what lies deeper is counted.",
)  # fmt: skip
@json_option
@general_options
def command(paths: tuple[str, ...], depth: int, as_json: bool) -> int:
    """Draw a checkpoint as a tree, dtype and shape at the leaves.

    With an object graph (TF2) it is the graph: each object once, at its shortest path, with the slots that optimizers keep for a
    variable below it; other edges to it are shown as `name = path`. Without one, the parts of the keys between slashes.
    """
    settings = current_settings()
    screen = Screen(settings)

    def work(path: str) -> int:
        with open_checkpoint(path, settings) as ckpt:
            graph = ckpt.graph
            outline = outline_of_names(ckpt.specs.items()) if graph is None else outline_of_graph(graph, ckpt.specs)
            if as_json:
                print_json(_document(path, ckpt, outline))
            else:
                _print_tree(screen, ckpt, outline, depth)
                if len(paths) > 1:
                    screen.line()
        return exits.YES

    return run_for_each(paths, work, settings, as_json=as_json)


class _Line(NamedTuple):
    """One drawn line: the branch, the text, and dtype and shape to align."""

    branch: str
    text: str
    value: str = ""


def _print_tree(screen: Screen, ckpt: CheckpointReader, outline: Outline, depth: int) -> None:
    print_heading(screen, ckpt)
    lines = _draw(screen, outline, depth)
    first = list(islice(lines, _ALIGNED))
    left = max((len(line.branch) + cell_width(line.text) for line in first if line.value), default=0)
    left = min(left, _WIDEST_LEFT)
    if screen.width is not None:
        widest = max((len(line.value) for line in first), default=0)
        left = max(20, min(left, screen.width - widest - 2))
    for line in chain(first, lines):
        text = line.text
        if screen.width is not None:
            room = (left if line.value else screen.width) - len(line.branch)
            text = shorten(text, max(8, room), screen.ellipsis)
        if line.value:
            text = pad(text, left - len(line.branch)) + "  " + line.value
        screen.line(f"{screen.style(line.branch, 'dim')}{text}")
    tensors = [leaf for node in outline.nodes for leaf in node.tensors if leaf.spec is not None]
    summary = f"{count_text(len(outline.nodes), 'node')}, {count_text(len(tensors), 'tensor')}"
    summary += f", {count_text(sum(leaf.spec.size for leaf in tensors if leaf.spec), 'element')}"
    screen.line(screen.style(summary, "bold"))
    if not outline.is_graph:
        screen.line(screen.style("no object graph in this checkpoint: drawn from its names", "dim"))
    apart = [*outline.unreferenced, *(leaf.key for leaf in outline.lost_leaves())]
    if apart:
        screen.line(f"not reached from the root: {count_text(len(apart), 'key')}")
        screen.lines(f"  {printable(key)}" for key in apart)


def _draw(screen: Screen, outline: Outline, depth: int) -> Iterator[_Line]:
    """Yield the lines in the order they are read; a stack instead of recursion, because a graph may be deep."""
    tee, elbow, bar = ("├─ ", "└─ ", "│  ") if screen.draws_lines else ("|- ", "`- ", "|  ")
    slots, sizes = outline.slots_by_variable(), outline.sizes()
    drawn = {0}
    yield _Line("", "(root)", _own_value(outline, 0))
    stack = [("", 1, iter(_with_last(_parts_of(outline, slots, 0, drawn))))]
    while stack:
        indent, level, parts = stack[-1]
        following = next(parts, None)
        if following is None:
            stack.pop()
            continue
        is_last, (text, value, node) = following
        branch = indent + (elbow if is_last else tee)
        if level > depth and node is not None:
            hidden = sizes[node] - 1
            yield _Line(branch, f"{text} ({count_text(hidden, 'node')} below)" if hidden else text, value)
            continue
        yield _Line(branch, text, value)
        if node is not None:
            below = indent + ("   " if is_last else bar)
            stack.append((below, level + 1, iter(_with_last(_parts_of(outline, slots, node, drawn)))))


def _with_last(parts: list[_Part]) -> list[tuple[bool, _Part]]:
    return [(number == len(parts) - 1, part) for number, part in enumerate(parts)]


class _Part(NamedTuple):
    """Something that hangs below a node; ``node`` is None where nothing hangs below it in turn."""

    text: str
    value: str
    node: int | None


def _parts_of(outline: Outline, slots: dict[int, list[tuple[int, Slot]]], node: int, drawn: set[int]) -> list[_Part]:
    """Return what hangs below a node: its tensors (one plain value stands beside the name), its slots, its children.

    A child is descended into where it was not yet ``drawn`` and this is its first edge; every other edge refers to it.
    """
    found = []
    leaves = outline.nodes[node].tensors
    if not _is_plain(leaves):
        found += [_Part(_leaf_text(leaf), _leaf_value(leaf), None) for leaf in leaves]
    for optimizer, slot in slots.get(node, ()):
        found.append(
            _Part(f"slot {printable(slot.slot)} of {_path(outline, optimizer)}", _own_value(outline, slot.node), None)
        )
    for name, child in outline.nodes[node].children:
        text = printable(name) or "''"
        if child not in drawn and outline.first_edges[child] == (node, name):
            drawn.add(child)
            found.append(_Part(text, _own_value(outline, child), child))
        else:
            found.append(_Part(f"{text} = {_path(outline, child)}", "", None))
    return found


def _path(outline: Outline, node: int) -> str:
    path = outline.path(node)
    return f"node {node}" if path is None else shorten(printable(path), _LONGEST_PATH) or "(root)"


def _own_value(outline: Outline, node: int) -> str:
    leaves = outline.nodes[node].tensors
    return _leaf_value(leaves[0]) if _is_plain(leaves) else ""


def _is_plain(leaves: Sequence[Leaf]) -> bool:
    return len(leaves) == 1 and leaves[0].attribute in (_VALUE, "")


def _leaf_text(leaf: Leaf) -> str:
    """Return the attribute's name, and the end of the key where one attribute has several tensors."""
    return printable(leaf.attribute or leaf.key.rpartition("/")[2])


def _leaf_value(leaf: Leaf) -> str:
    if leaf.spec is None:
        return "missing from the checkpoint"
    return f"{leaf.spec.dtype} {shape_text(leaf.spec.shape)}"


def _document(path: str, ckpt: CheckpointReader, outline: Outline) -> dict[str, object]:
    return {
        "path": path,
        "prefix": ckpt.prefix,
        "format": ckpt.format,
        "step": ckpt.step,
        "graph": outline.is_graph,
        "nodes": [
            {
                "id": number,
                "path": outline.path(number),
                "children": [{"name": name, "node": child} for name, child in node.children],
                "tensors": [_leaf_document(leaf) for leaf in node.tensors],
                "slots": [slot._asdict() for slot in node.slots],
            }
            for number, node in enumerate(outline.nodes)
        ],
        "unreferenced": outline.unreferenced,
    }


def _leaf_document(leaf: Leaf) -> dict[str, object]:
    return {"attribute": leaf.attribute, **tensor_document(leaf.key, leaf.spec)}
