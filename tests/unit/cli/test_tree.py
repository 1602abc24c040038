"""``openckpt tree`` over graphs that are no trees, and over names."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from docs.schema import faults, schemas
from openckpt.cli.outline import DEEPEST, outline_of_graph, outline_of_names
from openckpt.formats.bundle import Strings, encode_bundle
from openckpt.formats.objectgraph import Attribute, Child, Node, ObjectGraph, SlotVariable, encode_object_graph
from openckpt.formats.spec import GRAPH_KEY, TensorSpec
from openckpt.storage.writing import write_folder
from unit.cli.running import Runner

VALUE = "/.ATTRIBUTES/VARIABLE_VALUE"


def variable(path: str) -> Node:
    return Node(attributes=(Attribute("VARIABLE_VALUE", "", path + VALUE),))


def tangled() -> ObjectGraph:
    """The root is its own child; a layer has two names; the optimizer points at the variable and keeps a slot for it."""
    return ObjectGraph(
        (
            Node(children=(Child(0, "root"), Child(1, "model"), Child(2, "opt"), Child(6, "table"))),
            Node(children=(Child(3, "w"), Child(3, "alias"), Child(1, "me"))),
            Node(children=(Child(3, "0"),), slot_variables=(SlotVariable(3, "m", 4),)),
            variable("model/w"),
            variable("model/w/.OPTIMIZER_SLOT/opt/m"),
            variable("lost"),
            Node(
                attributes=(
                    Attribute("table", "", "table/.ATTRIBUTES/table"),
                    Attribute("gone", "", "table/.ATTRIBUTES/gone"),
                )
            ),
        )
    )


@pytest.fixture
def graph_checkpoint(tmp_path: Path) -> Path:
    tensors = {
        "model/w" + VALUE: np.zeros((3, 4), "f4"),
        "model/w/.OPTIMIZER_SLOT/opt/m" + VALUE: np.zeros((3, 4), "f4"),
        "lost" + VALUE: np.zeros(1, "i8"),
        "table/.ATTRIBUTES/table-keys": np.zeros(2, "i8"),
        "table/.ATTRIBUTES/table-values": np.zeros(2, "f4"),
        "stranger": np.zeros(1, "f4"),
        GRAPH_KEY: Strings([encode_object_graph(tangled())]),
    }
    write_folder(str(tmp_path), encode_bundle(tensors, "tangled-1"))
    return tmp_path / "tangled-1"


def test_every_node_is_drawn_once_and_every_edge_shown(openckpt_cli: Runner, graph_checkpoint: Path) -> None:
    """Cycles and second names refer to the first, shortest path; slots stand below their variable."""
    answer = openckpt_cli("tree", graph_checkpoint)
    assert (answer.code, answer.err) == (0, "")
    assert answer.out.splitlines()[1:] == [
        "(root)",
        "├─ root = (root)",
        "├─ model",
        "│  ├─ w                 float32 [3,4]",
        "│  │  └─ slot m of opt  float32 [3,4]",
        "│  ├─ alias = model/w",
        "│  └─ me = model",
        "├─ opt",
        "│  └─ 0 = model/w",
        "└─ table",
        "   ├─ table             int64 [2]",
        "   ├─ table             float32 [2]",
        "   └─ gone              missing from the checkpoint",
        "7 nodes, 5 tensors, 29 elements",
        "not reached from the root: 2 keys",
        "  stranger",
        "  lost/.ATTRIBUTES/VARIABLE_VALUE",
    ]


def test_json_is_a_list_of_nodes(openckpt_cli: Runner, graph_checkpoint: Path) -> None:
    """It says what is stored, edge by edge, and follows the documented schema."""
    document = openckpt_cli("tree", "--json", graph_checkpoint).documents[0]
    assert faults(document, schemas()["tree"]) == []
    assert document["graph"] is True
    nodes = document["nodes"]
    assert [node["path"] for node in nodes] == ["", "model", "opt", "model/w", None, None, "table"]
    assert nodes[0]["children"][0] == {"name": "root", "node": 0}
    assert nodes[2]["slots"] == [{"slot": "m", "variable": 3, "node": 4}]
    assert nodes[6]["tensors"][2] == {
        "attribute": "gone", "key": "table/.ATTRIBUTES/gone", "dtype": None, "shape": None, "bytes": None,
    }  # fmt: skip
    assert document["unreferenced"] == ["stranger"]


def test_without_a_graph_names_make_the_tree(openckpt_cli: Runner, run_folder: Path) -> None:
    """The parts of the keys between slashes; the command says that there is no graph."""
    answer = openckpt_cli("tree", run_folder / "ckpt-1")
    assert answer.out.splitlines()[1:] == [
        "(root)",
        "├─ dense",
        "│  ├─ bias    float32 [4]",
        "│  └─ kernel  float32 [3,4]",
        "└─ step       int64 []",
        "5 nodes, 3 tensors, 17 elements",
        "no object graph in this checkpoint: drawn from its names",
    ]
    document = openckpt_cli("tree", "--json", run_folder / "ckpt-1").documents[0]
    assert faults(document, schemas()["tree"]) == []
    assert document["graph"] is False


def test_depth_counts_what_it_hides(openckpt_cli: Runner, graph_checkpoint: Path, run_folder: Path) -> None:
    """A cut is never silent."""
    assert "├─ dense (2 nodes below)" in openckpt_cli("tree", "--depth", "0", run_folder / "ckpt-1").out
    assert "├─ model (1 node below)" in openckpt_cli("tree", "--depth", "0", graph_checkpoint).out


def test_a_chain_of_a_hundred_thousand_nodes_is_drawn_to_the_default_depth(
    openckpt_cli: Runner, tmp_path: Path
) -> None:
    """A hostile graph costs neither recursion nor the square of its length, drawn or as JSON."""
    count = 100_000
    nodes = tuple(Node(children=(Child(number + 1, "next"),)) for number in range(count - 1))
    graph = ObjectGraph((*nodes, variable("end")))
    tensors = {"end" + VALUE: np.zeros(1, "f4"), GRAPH_KEY: Strings([encode_object_graph(graph)])}
    write_folder(str(tmp_path), encode_bundle(tensors, "chain"))
    answer = openckpt_cli("tree", tmp_path / "chain")
    assert answer.code == 0
    assert f"({count - DEEPEST - 2:,} nodes below)" in answer.out
    assert len(answer.out) < 100_000
    answer = openckpt_cli("tree", "--json", tmp_path / "chain")
    assert answer.code == 0
    assert len(answer.out) < 200 * count


def test_doubled_edges_do_not_multiply(openckpt_cli: Runner, tmp_path: Path) -> None:
    """Two equal edges at each of forty levels are forty nodes, not a trillion."""
    nodes = tuple(Node(children=(Child(number + 1, "a"), Child(number + 1, "a"))) for number in range(40))
    graph = ObjectGraph((*nodes, variable("end")))
    tensors = {"end" + VALUE: np.zeros(1, "f4"), GRAPH_KEY: Strings([encode_object_graph(graph)])}
    write_folder(str(tmp_path), encode_bundle(tensors, "doubled"))
    answer = openckpt_cli("tree", tmp_path / "doubled")
    assert answer.code == 0
    assert len(answer.out.splitlines()) == 1 + 1 + 80 + 1


def test_a_key_of_ten_thousand_parts_stays_one_tensor() -> None:
    """Names are cut into levels only so far."""
    outline = outline_of_names([("a/" * 10_000 + "b", TensorSpec("float32", (), 4))])
    assert len(outline.nodes) == DEEPEST + 1


def test_paths_escape_names_as_keys_do() -> None:
    """A child called "a.b/c" stands in a path as TensorFlow writes it."""
    graph = ObjectGraph((Node(children=(Child(1, "a.b/c"),)), variable("x")))
    assert outline_of_graph(graph, {}).path(1) == "a..b.Sc"
