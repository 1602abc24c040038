"""Meta graphs and SavedModels, as far as a checkpoint tool reads them (formats 5)."""

from __future__ import annotations

import struct
import subprocess
import sys

import pytest

from openckpt.errors import FormatError, LimitError, PathNotFoundError
from openckpt.formats.metagraph import GraphVariable, ObjectVariable, Saver, VariableSlice, parse_meta_graph
from openckpt.formats.savedmodel import find_saved_model, read_saved_model, validate_saved_model
from openckpt.formats.wire import encode_field
from openckpt.limits import Limits
from openckpt.storage.memory import MemorySource, MemoryStore


def message(*fields: tuple[int, int | bytes]) -> bytes:
    return b"".join(encode_field(number, value) for number, value in fields)


def collection(name: bytes, *values: bytes) -> tuple[int, bytes]:
    return 4, message((1, name), (2, message((2, message(*((1, value) for value in values))))))


def variable(name: bytes, *more: tuple[int, int | bytes]) -> bytes:
    return message((1, name), (2, name + b"/Assign"), *more)


INFO = message((2, message((1, b"op1"), (1, b"op2"))), (4, b"serve"), (5, b"1.14.0"), (6, b"v1.14.0-rc1"))
GRAPH = message((1, b"node"), (1, b"node"), (4, message((1, 27))))
SAVER = (
    message((1, b"save/Const:0"), (2, b"save/Identity:0"), (3, b"save/restore_all"), (4, 5), (5, 1))
    + b"\x35" + struct.pack("<f", 10000.0) + message((7, 2))
)  # fmt: skip
PIECE = message((1, b"part"), (2, b"\x05\x04"), (3, 2), (3, 0), (4, b"\x03\x04"))
META = message(
    (1, INFO),
    (2, GRAPH),
    (3, SAVER),
    collection(b"variables", variable(b"w:0"), variable(b"part/part_1:0", (4, PIECE)), variable(b"r:0", (5, 1))),
    collection(b"trainable_variables", variable(b"w:0")),
    collection(b"losses", b"\xff\xff"),
    (6, b"asset"),
    (6, b"asset"),
)


def parse(data: bytes, **limits: int):
    return parse_meta_graph(MemorySource("m.meta", data), Limits(**limits))


def test_a_meta_graph_says_who_wrote_it_how_it_saved_and_which_variables_it_has():
    """Every field that is kept, from bytes put together here."""
    meta = parse(META)

    assert (meta.tensorflow_version, meta.tensorflow_git_version, meta.tags) == ("1.14.0", "v1.14.0-rc1", ("serve",))
    assert (meta.producer, meta.nodes, meta.stripped_ops, meta.assets) == (27, 2, 2, 2)
    assert meta.saver == Saver("save/Const:0", "save/Identity:0", "save/restore_all", 5, True, 10000.0, 2)
    assert meta.collections == ("variables", "trainable_variables", "losses")
    assert meta.variables == (
        GraphVariable("w:0", "w", True, False, None),
        GraphVariable("part/part_1:0", "part", False, False, VariableSlice((5, 4), (2, 0), (3, 4))),
        GraphVariable("r:0", "r", False, True, None),
    )
    assert (meta.object_nodes, meta.object_variables, meta.is_text) == (None, (), False)


def test_the_variables_of_an_object_graph_carry_their_node_numbers():
    """They are those of the checkpoint's own object graph."""
    shape = message((2, message((1, 3))), (2, b""))
    nodes = [
        message((4, b"")),
        message((7, message((1, 1), (2, shape), (3, 1), (6, b"dense/kernel")))),
        message((1, b"\x08\x01")),
        message((7, message((1, 99), (2, message((3, 1)))))),
    ]
    meta = parse(message((7, message(*((1, node) for node in nodes)))))
    assert meta.object_nodes == 4
    assert meta.object_variables == (
        ObjectVariable(1, "dense/kernel", "float32", (3, 0), True),
        ObjectVariable(3, "", "unknown-99", None, False),
    )


class Counting(MemorySource):
    """Counts the bytes that are read."""

    __slots__ = ("read",)

    def read_at(self, offset: int, size: int) -> bytes:
        self.read = getattr(self, "read", 0) + size
        return super().read_at(offset, size)


def test_a_large_graph_is_skipped_not_read():
    """32 MiB of constants cost a few windows of 64 KiB."""
    graph = message((1, bytes(16 << 20)), (1, bytes(16 << 20)), (4, message((1, 27))))
    source = Counting("m.meta", message((1, INFO), (2, graph), (3, SAVER)))
    meta = parse_meta_graph(source)
    assert (meta.producer, meta.nodes) == (27, 2)
    assert source.read < 1 << 20


def test_the_nodes_of_an_enormous_graph_are_not_counted():
    """The rest is read all the same."""
    meta = parse(message((1, INFO), (2, b"\x0a\x00" * 200_001), (3, SAVER)))
    assert (meta.nodes, meta.producer, meta.tensorflow_version) == (None, None, "1.14.0")
    assert meta.saver is not None


REFUSED = [
    (b"", "meta.empty"),
    (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "meta.lfs-pointer"),
    (b"<html></html>", "meta.does-not-parse"),
    (META[:-1], "meta.does-not-parse"),
    (META[:100], "meta.does-not-parse"),
    (b"\x0a", "meta.does-not-parse"),
    (b"\x0a\xff\xff\xff\xff\x7f", "meta.does-not-parse"),
    (b"\x0a" + b"\x80" * 11, "meta.does-not-parse"),
    (b"\x02\x00", "meta.does-not-parse"),
    (b"\x0b\x0c", "meta.does-not-parse"),
    (message((1, b"\x0a\x05")), "meta.does-not-parse"),
    (message((1, message((5, b"\xff")))), "meta.does-not-parse"),
    (message((2, b"\x0a\x7f")), "meta.does-not-parse"),
    (message((2, message((4, b"\x08")))), "meta.does-not-parse"),
    (message((3, b"\x0a\x02\xff\xff")), "meta.does-not-parse"),
    (message(collection(b"variables", b"\x0a\x05")), "meta.does-not-parse"),
    (message((7, message((1, message((7, message((2, message((2, b"\xff")))))))))), "meta.does-not-parse"),
    (message((7, message((1, message((7, message((2, b"\x12\x00" * 255)))))))), "limits.exceeded"),
]


@pytest.mark.parametrize(("data", "code"), REFUSED)
def test_what_is_no_meta_graph_is_refused_with_its_code(data, code):
    """Empty, pointers, other files, cut and damaged ones."""
    with pytest.raises(FormatError) as caught:
        parse(data)
    assert caught.value.code == code


def test_limits_hold_for_what_is_read_not_for_what_is_skipped():
    """A graph of a kilobyte passes a cap of 200 bytes, a collection of one does not."""
    assert parse(message((2, message((1, bytes(1000))))), graph_bytes=200).nodes == 1
    with pytest.raises(LimitError):
        parse(message(collection(b"variables", variable(b"w" * 1000))), graph_bytes=200)
    with pytest.raises(LimitError):
        parse(message((1, message(*((4, b"t") for _ in range(20))))), graph_nodes=10)


def test_a_text_meta_graph_is_recognised_and_its_version_found():
    """Written with as_text=True."""
    text = (
        b'# a comment\nmeta_info_def {\n  stripped_op_list { op { name: "Add" } }\n  tensorflow_version: "1.4.0"\n}\n'
    )
    meta = parse(text)
    assert (meta.is_text, meta.tensorflow_version, meta.variables) == (True, "1.4.0", ())


def saved_model(*graphs: bytes, schema: int = 1) -> bytes:
    return message((1, schema), *((2, graph) for graph in graphs))


OBJECTS = message((1, INFO), (7, message((1, message((7, message((1, 1), (6, b"w"))))))))


def test_a_saved_model_directory_tells_its_style_and_its_parts():
    """TF1 by collections, TF2 by its object graph."""
    files = MemoryStore(
        {
            "d/saved_model.pb": saved_model(OBJECTS),
            "d/variables/variables.index": b"",
            "d/fingerprint.pb": b"",
            "d/keras_metadata.pb": b"",
        }
    )
    model = read_saved_model(files, "d")
    assert (model.style, model.schema_version, model.tensorflow_version) == ("tf2", 1, "1.14.0")
    assert (model.variables, model.has_fingerprint, model.has_keras_metadata) == ("d/variables/variables", True, True)
    assert validate_saved_model(files, "d") == []

    older = read_saved_model(MemoryStore({"d/saved_model.pb": saved_model(META, META)}), "d")
    assert (older.style, len(older.meta_graphs), older.variables) == ("tf1", 2, None)
    assert (older.has_fingerprint, older.has_keras_metadata) == (False, False)


def test_a_text_saved_model_is_recognised():
    """Its style is not known."""
    files = MemoryStore(
        {"d/saved_model.pbtxt": b'saved_model_schema_version: 1\nmeta_graphs { tensorflow_version: "2.1" }'}
    )
    model = read_saved_model(files, "d")
    assert (model.is_text, model.tensorflow_version, model.style) == (True, "2.1", "unknown")
    assert validate_saved_model(files, "d") == []


def test_the_binary_file_goes_before_the_text():
    """As in TensorFlow."""
    files = MemoryStore({"d/saved_model.pb": b"", "d/saved_model.pbtxt": b""})
    assert find_saved_model(files, "d") == "d/saved_model.pb"


def test_a_directory_without_one_is_an_error_of_the_path():
    """So that a caller may try something else."""
    with pytest.raises(PathNotFoundError) as caught:
        read_saved_model(MemoryStore({"d/x": b""}), "d")
    assert caught.value.code == "savedmodel.absent"


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "savedmodel.empty"),
        (b"version https://git-lfs.github.com/spec/v1\n", "savedmodel.lfs-pointer"),
        (b"\x12\x05\x0a", "savedmodel.does-not-parse"),
        (saved_model(b"\x0a\x7f"), "savedmodel.does-not-parse"),
        (saved_model(), "savedmodel.no-meta-graph"),
        (saved_model(message((1, INFO)), schema=2), "savedmodel.schema-version"),
        (saved_model(OBJECTS), "savedmodel.variables-missing"),
        (saved_model(META), "savedmodel.variables-missing"),
    ],
)
def test_every_fault_of_a_saved_model_is_a_finding(data, code):
    """Damage does not raise out of the check."""
    assert [finding.code for finding in validate_saved_model(MemoryStore({"d/saved_model.pb": data}), "d")] == [code]


def test_a_model_without_variables_needs_no_folder_for_them():
    """A function only."""
    assert validate_saved_model(MemoryStore({"d/saved_model.pb": saved_model(message((1, INFO)))}), "d") == []


def test_neither_protobuf_nor_numpy_is_imported():
    """A census over thousands of exports stays quick, and no version of protobuf is in anybody's way."""
    program = (
        "import sys; from openckpt.formats.metagraph import parse_meta_graph;"
        "from openckpt.storage.memory import MemorySource;"
        f"assert parse_meta_graph(MemorySource('m', bytes.fromhex('{META.hex()}'))).saver;"
        "sys.exit(any(m in sys.modules for m in ('google.protobuf', 'numpy')))"
    )
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0
