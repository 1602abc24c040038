"""The object graph: bytes, names, ways to a key, and what is wrong between graph and keys (formats 6)."""

from __future__ import annotations

import subprocess
import sys

import pytest

from mirrors import MIRRORS
from openckpt.errors import FormatError, LimitError
from openckpt.formats import objectgraph
from openckpt.formats.objectgraph import Attribute, Child, Node, ObjectGraph, RegisteredSaver, SlotVariable
from openckpt.limits import Limits

VALUE = "/.ATTRIBUTES/VARIABLE_VALUE"


def leaf(key: str, full_name: str = "") -> Node:
    return Node((), (Attribute("VARIABLE_VALUE", full_name, key + VALUE),), has_checkpoint_values=True)


# The root has a model twice, by two names; the model has a kernel; the optimizer keeps one slot for it.
GRAPH = ObjectGraph(
    (
        Node((Child(1, "model"), Child(1, "net"), Child(2, "optimizer"), Child(0, "self")), has_checkpoint_values=True),
        Node((Child(3, "dense.1"),), has_checkpoint_values=True),
        Node((), (), (SlotVariable(3, "m", 4),), has_checkpoint_values=True),
        leaf("model/dense..1", "dense_1/kernel"),
        leaf("model/dense..1/.OPTIMIZER_SLOT/optimizer/m"),
        Node((), (), (), None, False),
    )
)


def test_a_graph_is_written_as_in_the_format_page():
    """Every field of one small graph, byte by byte."""
    graph = ObjectGraph(
        (
            Node((Child(1, "w"),), has_checkpoint_values=True),
            Node((), (Attribute("V", "w", "w/V"),), (SlotVariable(1, "m", 1),), RegisteredSaver("S", "o"), False),
        )
    )
    data = bytes.fromhex(
        "0a0b 0a05 0801 120177 2a02 0801"
        " 0a20 120b 0a0156 120177 1a03772f56 1a07 0801 12016d 1801 2206 0a0153 12016f 2a00"
    )
    assert objectgraph.encode_object_graph(graph).hex() == data.hex()
    assert objectgraph.parse_object_graph(data, "x") == graph


def test_the_python_type_of_a_node_is_a_field_that_others_pass_over():
    """Field 100, behind those that TensorFlow knows."""
    plain = Node((Child(1, "0"),), has_checkpoint_values=True)
    graph = ObjectGraph((plain._replace(python_type="list"), Node(python_type="value", has_checkpoint_values=False)))
    data = objectgraph.encode_object_graph(graph)

    assert data.startswith(bytes.fromhex("0a12 0a05 0801 120130 2a02 0801 a20604") + b"list")
    assert objectgraph.parse_object_graph(data, "x") == graph
    message = MIRRORS["TrackableObjectGraph"].FromString(data)
    assert [child.local_name for child in message.nodes[0].children] == ["0"] and len(message.nodes) == 2


REFUSED = [
    ("", "graph.empty"),
    ("1a 00", "graph.empty"),
    ("0a", "graph.does-not-parse"),
    ("0a 05 0a", "graph.does-not-parse"),
    ("0a 02 0a 05", "graph.does-not-parse"),
    ("0a 01 0a 00", "graph.does-not-parse"),
    ("0a 80 80 80 80 80 80 80 80 80 80 01", "graph.does-not-parse"),
    ("0a ff ff ff ff 0f", "graph.does-not-parse"),
    ("0a 07 0a 05 08 00 12 01 ff", "graph.does-not-parse"),
    ("0a 03 12 01 0a", "graph.does-not-parse"),
    ("0a 02 02 00", "graph.does-not-parse"),
    ("0a 07 c2 80 c2 80 1a 01 30", "graph.does-not-parse"),
    ("0b 0c", "graph.does-not-parse"),
    ("0a 00 15 00 00", "graph.does-not-parse"),
    ("0a 00 19 00", "graph.does-not-parse"),
    ("0a 04 0a 02 08 01", "graph.edge-out-of-range"),
    ("0a 0d 0a 0b 08 ff ff ff ff ff ff ff ff ff 01", "graph.edge-out-of-range"),
    ("0a 08 0a 06 08 ff ff ff ff 07", "graph.edge-out-of-range"),
    ("0a 04 1a 02 18 01", "graph.edge-out-of-range"),
    ("0a 04 1a 02 08 01", "graph.edge-out-of-range"),
]


@pytest.mark.parametrize(("data", "code"), REFUSED)
def test_what_is_no_graph_is_refused_with_its_code(data, code):
    """Literal bytes and the code they give."""
    with pytest.raises(FormatError) as caught:
        objectgraph.parse_object_graph(bytes.fromhex(data), "x")
    assert caught.value.code == code


ACCEPTED = [
    ("0a 00", Node()),
    ("0a 05 0a 03 12 01 61", Node((Child(0, "a"),))),
    ("0a 05 0a 03 0a 01 61", Node((Child(0, ""),))),  # a field of another wire type is unknown, as in protobuf
    ("0a 07 0a 05 12 01 61 08 00", Node((Child(0, "a"),))),
    ("0a 08 0a 06 12 01 61 12 01 62", Node((Child(0, "b"),))),
    ("0a 05 7a 01 00 78 05", Node()),
    ("0a 0a 35 00 00 00 00 2a 02 08 02 78", None),
    ("0a 04 2a 02 08 02", Node(has_checkpoint_values=True)),
    ("0a 06 2a 02 08 01 2a 00", Node(has_checkpoint_values=True)),
    ("0a 04 12 02 20 01", Node((), (Attribute("", "", "", True),))),
]


@pytest.mark.parametrize(("data", "node"), ACCEPTED)
def test_unknown_fields_other_orders_and_repeats_read_as_in_protobuf(data, node):
    """The last value of a repeated scalar holds; messages that stand twice are merged."""
    if node is None:
        with pytest.raises(FormatError):
            objectgraph.parse_object_graph(bytes.fromhex(data), "x")
        return
    assert objectgraph.parse_object_graph(bytes.fromhex(data), "x").nodes == (node,)


def test_a_graph_above_the_limits_is_refused():
    """Bytes, and nodes with their edges."""
    data = objectgraph.encode_object_graph(GRAPH)
    with pytest.raises(LimitError):
        objectgraph.parse_object_graph(data, "x", Limits(graph_bytes=10))
    with pytest.raises(LimitError):
        objectgraph.parse_object_graph(data, "x", Limits(graph_nodes=10))
    assert objectgraph.parse_object_graph(data, "x", Limits(graph_nodes=14)) == GRAPH


def test_paths_name_every_way_to_a_key_the_stored_one_first():
    """Two names for the model; the root that lists itself adds none."""
    key = "model/dense..1" + VALUE
    assert list(GRAPH.paths(key)) == [(key, key), ("net/dense..1" + VALUE, key)]


def test_a_slot_has_the_ways_of_its_variable_times_those_of_its_optimizer():
    """Slot variables have no parent edge of their own."""
    key = "model/dense..1/.OPTIMIZER_SLOT/optimizer/m" + VALUE
    other = "net/dense..1/.OPTIMIZER_SLOT/optimizer/m" + VALUE
    assert list(GRAPH.paths(key)) == [(key, key), (other, key)]
    assert [key for _, key in GRAPH.paths()] == ["model/dense..1" + VALUE] * 2 + [key] * 2


def test_a_key_that_is_not_in_the_graph_has_no_path():
    """Nothing, rather than an error: checkpoints may hold more than the graph."""
    assert list(GRAPH.paths("x")) == []


def test_too_many_paths_are_cut_and_said_to_be():
    """Thirty nodes in a row, two edges between each: a billion ways."""
    nodes = [Node((Child(i + 1, "a"), Child(i + 1, "b"))) for i in range(30)]
    graph = ObjectGraph((*nodes, leaf("k")))
    paths = graph.paths("k" + VALUE, most=100)
    assert len(list(paths)) == 100
    assert paths.cut


def test_a_maze_of_dead_ends_is_given_up_and_said_to_be():
    """Forty nodes that all know one another, the way out known to one only."""
    crowd = range(1, 41)
    nodes = [Node((Child(41, "out"), *(Child(i, f"n{i}") for i in crowd)))]
    nodes += [Node(tuple(Child(i, f"n{i}") for i in (*crowd, 41))) for _ in crowd]
    graph = ObjectGraph((*nodes, leaf("k")))
    paths = graph.paths("k" + VALUE, most=1000)
    assert 1 <= len(list(paths)) <= 1000
    assert paths.cut


def test_the_limit_on_paths_is_that_of_the_reader():
    """`Limits.graph_paths` holds without saying it again at the call, and the call may say another number."""
    data = objectgraph.encode_object_graph(GRAPH)
    key = "model/dense..1" + VALUE

    graph = objectgraph.parse_object_graph(data, "x", Limits(graph_paths=1))

    paths = graph.paths(key)
    assert len(list(paths)) == 1 and paths.cut
    assert len(list(graph.paths(key, most=9))) == 2
    assert graph == GRAPH


def test_a_key_of_a_million_dashes_is_looked_up_at_once():
    """What a saveable appends to its key has a few of them; each one costs a look-up."""
    assert GRAPH.find_attribute("-" * 1_000_000) is None
    assert GRAPH.find_attribute("model/dense..1" + VALUE + "-a_b-c") is not None


def test_a_chain_of_a_hundred_thousand_nodes_is_parsed_named_and_walked():
    """Nothing recurses."""
    count = 100_000
    data = b"".join(
        b"\x0a" + bytes((len(child) + 2,)) + b"\x0a" + bytes((len(child),)) + child
        for child in (b"\x08" + _varint(i) + b"\x12\x01n" for i in range(1, count))
    )
    data += objectgraph.encode_object_graph(ObjectGraph((leaf("k"),)))
    graph = objectgraph.parse_object_graph(data, "x")
    assert list(graph.paths("k" + VALUE)) == [("n/" * (count - 1) + VALUE[1:], "k" + VALUE)]
    assert graph.name(count - 1) == "(root)" + ".n" * (count - 1)


def _varint(value: int) -> bytes:
    out = b""
    while value > 127:
        out += bytes((value & 127 | 128,))
        value >>= 7
    return out + bytes((value,))


def test_nodes_have_readable_names():
    """As TensorFlow words them; a node without any way keeps its number."""
    assert [GRAPH.name(i) for i in range(6)] == [
        "(root)",
        "(root).model",
        "(root).optimizer",
        "(root).model.dense.1",
        "(root).optimizer's state 'm' for (root).model.dense.1",
        "(node 5)",
    ]


def test_keys_are_found_by_key_by_full_name_and_by_what_a_legacy_saver_recorded():
    """``.../table`` stands for ``.../table-keys``, ``.../ITERATOR`` for ``.../ITERATOR_STATE``."""
    graph = ObjectGraph(
        (Node((), (Attribute("table", "t", "t/.ATTRIBUTES/table"), Attribute("I", "", "i/.ATTRIBUTES/I_T"))),)
    )
    assert GRAPH.keys_by_full_name == {"dense_1/kernel": "model/dense..1" + VALUE}
    assert GRAPH.find_attribute("model/dense..1" + VALUE) == (3, GRAPH.nodes[3].attributes[0])
    assert graph.find_attribute("t/.ATTRIBUTES/table-keys") == (0, graph.nodes[0].attributes[0])
    assert graph.find_attribute("i/.ATTRIBUTES/I_T_STATE") == (0, graph.nodes[0].attributes[1])
    assert graph.find_attribute("t/.ATTRIBUTES/tab") is None
    assert list(graph.paths("t/.ATTRIBUTES/table-keys")) == [("/.ATTRIBUTES/table-keys", "t/.ATTRIBUTES/table-keys")]


def test_every_absent_key_is_reported_in_one_finding():
    """TensorFlow names the first only."""
    (finding,) = objectgraph.validate_graph(GRAPH, {"other"}, "ckpt")
    assert finding.code == "graph.key-absent"
    assert finding.lost is not None
    assert finding.lost.tensors == ("model/dense..1" + VALUE, "model/dense..1/.OPTIMIZER_SLOT/optimizer/m" + VALUE)


def test_a_graph_whose_keys_are_all_there_has_no_finding():
    """Extra keys, optional attributes and keys of legacy savers are normal life."""
    graph = ObjectGraph(
        (
            Node(
                (),
                (
                    Attribute("table", "", "t/.ATTRIBUTES/table"),
                    Attribute("OBJECT_CONFIG_JSON", "", "x/.ATTRIBUTES/OBJECT_CONFIG_JSON"),
                    Attribute("A", "", "x/.ATTRIBUTES/A", True),
                ),
            ),
        )
    )
    keys = ["t/.ATTRIBUTES/table-keys", "t/.ATTRIBUTES/table-values", "more"]
    assert list(objectgraph.validate_graph(graph, keys, "ckpt")) == []


def test_a_graph_is_parsed_without_protobuf_and_numpy():
    """``openckpt tree`` shall start as fast as ``ls``."""
    program = (
        "import sys; from openckpt.formats.objectgraph import parse_object_graph;"
        "list(parse_object_graph(bytes.fromhex('0a00'), 'x').paths());"
        "sys.exit(any(m in sys.modules for m in ('google.protobuf', 'numpy')))"
    )
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0


def test_repr_is_one_line() -> None:
    """A graph has thousands of nodes, and somebody types its name in a shell."""
    assert repr(ObjectGraph((Node(),) * 3000)) == "<ObjectGraph of 3000 nodes>"
