"""The object graph's own parser and encoder against protobuf, over generated graphs and damaged bytes."""

from __future__ import annotations

from google.protobuf.message import DecodeError
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mirrors import MIRRORS
from openckpt.errors import FormatError
from openckpt.formats import objectgraph
from openckpt.formats.objectgraph import Attribute, Child, Node, ObjectGraph, RegisteredSaver, SlotVariable
from openckpt.formats.objectpaths import escape_name, unescape_name

Graph = MIRRORS["TrackableObjectGraph"]
name = st.one_of(st.sampled_from(["kernel", "0", "", "a.b/c", "é", "x" * 130]), st.text(max_size=5))


@st.composite
def graphs(draw):
    count = draw(st.integers(1, 8))
    ids = st.integers(0, count - 1)
    node = st.builds(
        Node,
        st.lists(st.builds(Child, ids, name), max_size=4).map(tuple),
        st.lists(st.builds(Attribute, name, name, name, st.booleans()), max_size=2).map(tuple),
        st.lists(st.builds(SlotVariable, ids, name, ids), max_size=2).map(tuple),
        st.none() | st.builds(RegisteredSaver, name, name),
        st.none() | st.booleans(),
        st.just(""),  # protobuf knows of no Python types
    )
    return ObjectGraph(tuple(draw(st.lists(node, min_size=count, max_size=count))))


def mirror(graph: ObjectGraph):
    message = Graph()
    for node in graph.nodes:
        added = message.nodes.add()
        for child in node.children:
            added.children.add(**child._asdict())
        for attribute in node.attributes:
            added.attributes.add(**attribute._asdict())
        for slot in node.slot_variables:
            added.slot_variables.add(**slot._asdict())
        if node.registered_saver is not None:
            added.registered_saver.SetInParent()
            added.registered_saver.name = node.registered_saver.name
            added.registered_saver.object_name = node.registered_saver.object_name
        if node.has_checkpoint_values is not None:
            added.has_checkpoint_values.value = node.has_checkpoint_values
            added.has_checkpoint_values.SetInParent()
    return message


def plain(message) -> ObjectGraph:
    return ObjectGraph(
        tuple(
            Node(
                tuple(Child(c.node_id, c.local_name) for c in node.children),
                tuple(Attribute(a.name, a.full_name, a.checkpoint_key, a.optional_restore) for a in node.attributes),
                tuple(
                    SlotVariable(s.original_variable_node_id, s.slot_name, s.slot_variable_node_id)
                    for s in node.slot_variables
                ),
                RegisteredSaver(node.registered_saver.name, node.registered_saver.object_name)
                if node.HasField("registered_saver")
                else None,
                node.has_checkpoint_values.value if node.HasField("has_checkpoint_values") else None,
            )
            for node in message.nodes
        )
    )


@given(graphs())
def test_graphs_are_written_and_read_as_protobuf_does(graph):
    """The same bytes, and the graph back."""
    data = objectgraph.encode_object_graph(graph)
    assert data == mirror(graph).SerializeToString()
    assert objectgraph.parse_object_graph(data, "g") == graph


@settings(max_examples=500)
@given(graphs(), st.data())
def test_damaged_graphs_read_as_protobuf_reads_them_or_are_refused(graph, data):
    """Any byte changed, cut or inserted: what is not refused has protobuf's values."""
    raw = bytearray(objectgraph.encode_object_graph(graph))
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(raw)))
        match data.draw(st.sampled_from(["set", "cut", "insert"])):
            case "set" if place < len(raw):
                raw[place] = data.draw(st.integers(0, 255))
            case "cut":
                del raw[place : place + data.draw(st.integers(1, 4))]
            case _:
                raw[place:place] = data.draw(st.binary(max_size=6))
    try:
        parsed = objectgraph.parse_object_graph(bytes(raw), "g")
    except FormatError as error:
        assert error.code.startswith("graph.")
        try:
            expected = Graph.FromString(bytes(raw))
        except DecodeError:
            return
        # Refused here only: an edge out of range, no node at all, or a group (a deprecated kind of field).
        refusable = error.code != "graph.does-not-parse" or "wire type 3" in str(error) or "legal" in str(error)
        assert refusable, (error, expected)
        return
    assert parsed == plain(Graph.FromString(bytes(raw)))


@st.composite
def named_graphs(draw):
    """Graphs whose edges all have different names and whose node i holds the key ``k<i>``."""
    count = draw(st.integers(1, 6))
    edges = draw(st.lists(st.tuples(st.integers(0, count - 1), st.integers(0, count - 1)), max_size=12))
    return ObjectGraph(
        tuple(
            Node(
                tuple(Child(target, f"e{index}") for index, (source, target) in enumerate(edges) if source == node_id),
                (Attribute("V", "", f"k{node_id}"),),
            )
            for node_id in range(count)
        )
    )


def simple_paths(graph: ObjectGraph, node_id: int, seen: tuple[int, ...], way: tuple[str, ...]):
    """Every way from a node that passes no node twice, by brute force: (target, names)."""
    yield node_id, way
    for child, local_name in graph.nodes[node_id].children:
        if child not in seen:
            yield from simple_paths(graph, child, (*seen, child), (*way, local_name))


@given(named_graphs())
def test_paths_are_all_ways_without_a_repeated_node_the_shortest_first(graph):
    """As brute force finds them: shared nodes, several names for one child, cycles, nodes that nothing leads to."""
    expected: dict[str, set[str]] = {}
    for target, way in simple_paths(graph, 0, (0,), ()):
        expected.setdefault(f"k{target}", set()).add("/".join(way) + "/.ATTRIBUTES/V")

    found: dict[str, list[str]] = {}
    paths = graph.paths()
    for path, key in paths:
        found.setdefault(key, []).append(path)

    assert {key: set(ways) for key, ways in found.items()} == expected
    assert all(len(set(ways)) == len(ways) for ways in found.values())
    assert all(ways[0].count("/") == min(way.count("/") for way in ways) for ways in found.values())
    assert not paths.cut


@given(st.text("./S.ab", max_size=12))
@example(".ATTRIBUTES")
@example("a.Sb")
def test_escaped_names_come_back_and_never_look_reserved(text):
    """One segment, no slash, never .ATTRIBUTES."""
    escaped = escape_name(text)
    assert unescape_name(escaped) == text
    assert "/" not in escaped
    assert not escaped.startswith((".A", ".O"))
