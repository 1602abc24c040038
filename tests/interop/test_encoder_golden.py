"""What openckpt writes in TensorFlow's layout are TensorFlow's bytes: for equal input every file is byte-identical."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import closing
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import openckpt
from interop.test_dtypes import NUMERIC, _tensor, _values
from interop.writers import NAME, WRITERS, assert_same_files, runs, specs_of
from interop.written import save_slices, save_v2
from openckpt.formats.bundle import BundleEntry, Sliced, Strings, Variants, encode_entry, open_bundle
from openckpt.formats.bundle.splitting import Piece, plan_shards
from openckpt.formats.dtypes import BY_NAME
from openckpt.formats.slicekeys import FULL, format_extents
from openckpt.formats.spec import GRAPH_KEY
from openckpt.storage import LOCAL

pytestmark = pytest.mark.interop

Writer = Callable[..., dict[str, bytes]]


@pytest.fixture(params=list(WRITERS))
def write(request: pytest.FixtureRequest) -> Writer:
    """One of the ways to write."""
    return WRITERS[request.param]


def _in_file_order(prefix: str) -> tuple[dict[str, Any], dict[str, str]]:
    """The values of a checkpoint with one data file in the order in which it holds them, and their dtypes' names."""
    with closing(open_bundle(LOCAL, prefix)) as ckpt:
        keys = sorted(ckpt.keys(), key=lambda key: (ckpt.locate(key)[0].offset, ckpt.locate(key)[0].nbytes))
        dtypes = {key: ckpt.spec(key).dtype for key in keys}
        values: dict[str, Any] = {key: ckpt.read(key) for key in keys}
    for key, name in dtypes.items():
        if name == "variant":
            values[key] = Variants(values[key].ravel().tolist(), values[key].shape)
    return values, dtypes


def _rewritten(write: Writer, prefix: str) -> dict[str, bytes]:
    values, dtypes = _in_file_order(prefix)
    return write(values, dtypes={key: name for key, name in dtypes.items() if name.startswith("q")})


# ---------------------------------------------------------------------------------------------------- values


@pytest.mark.parametrize("name", NUMERIC)
def test_dtype(tf: Any, tmp_path: Path, write: Writer, name: str) -> None:
    """Every numeric type: rank 0 to 2, and no elements."""
    values = {key: _values(name, shape) for key, shape in {"b": (3, 2), "a": (), "c": (0, 2), "d": (5,)}.items()}
    save_v2(tf, tmp_path / NAME, {key: _tensor(tf, name, value) for key, value in values.items()})

    made = write(values, dtypes=dict.fromkeys(values, name) if name.startswith("q") else None)

    assert_same_files(tmp_path, made)


def test_strings(tf: Any, tmp_path: Path, write: Writer) -> None:
    """Scalars, matrices, empty tensors and long strings, with zeros at the end."""
    values = {
        "scalar": np.array(b"", object), "matrix": np.array([[b"a", b"bc"], [b"", b"\xff" * 200]], object),
        "none": np.empty((0, 2), object), "long": np.array([b"x" * 100_000], object),
        "zeros": np.array([b"\0", b"a\0\0"], object), "edges": np.array([b"y" * 127, b"z" * 128, b"w" * 16_384], object),
    }  # fmt: skip
    save_v2(
        tf,
        tmp_path / NAME,
        {
            key: tf.constant(value, tf.string, shape=value.shape) if value.size else tf.zeros(value.shape, tf.string)
            for key, value in values.items()
        },
    )

    given = {key: Strings(value.ravel().tolist(), value.shape) for key, value in values.items()}

    assert_same_files(tmp_path, write(values))
    assert_same_files(tmp_path, write(given))


def test_variants(tf: Any, tmp_path: Path, write: Writer) -> None:
    """Tensor lists; the elements are those that TensorFlow's own serialiser makes, each with its length before all."""
    from tensorflow.core.framework import tensor_pb2

    def tensor_list(rows: list[list[int]]) -> Any:
        return tf.raw_ops.TensorListFromTensor(tensor=tf.constant(rows), element_shape=tf.constant([2]))

    tensors = {
        "v": tf.stack([tensor_list([[1, 2]]), tensor_list([[3, 4], [5, 6]])]),
        "long": tf.stack([tensor_list([[row, row] for row in range(100)])]),
        "scalar": tensor_list([[7, 8]]),
    }
    save_v2(tf, tmp_path / NAME, {"before": tf.constant(1.0), **tensors, "after": tf.constant(2.0)})

    values: dict[str, Any] = {"before": np.float32(1)}
    for key, tensor in tensors.items():
        proto = tensor_pb2.TensorProto.FromString(tf.io.serialize_tensor(tensor).numpy())
        values[key] = Variants(_split(proto.tensor_content, int(tf.size(tensor))), tuple(tensor.shape))
    values["after"] = np.float32(2)

    assert_same_files(tmp_path, write(values))


def _split(content: bytes, count: int) -> list[bytes]:
    """The elements of a serialized variant tensor: all lengths as varints, then all elements."""
    from openckpt.formats.wire import parse_varint

    lengths, pos = [], 0
    for _ in range(count):
        length, pos = parse_varint(content, pos)
        lengths.append(length)
    elements = []
    for length in lengths:
        elements.append(content[pos : pos + length])
        pos += length
    assert pos == len(content)
    return elements


# ----------------------------------------------------------------------------------------------------- index


def test_twenty_thousand_keys_in_several_blocks(tf: Any, tmp_path: Path, write: Writer) -> None:
    """An index of several blocks: separators, restart points, shared prefixes."""
    values = {
        f"model/layer_{n % 200:03d}/block_{n // 200:05d}/kernel": np.array([n, -n], np.int32) for n in range(20_000)
    }
    save_v2(tf, tmp_path / NAME, values)

    assert_same_files(tmp_path, write(values))


def test_keys_that_make_separators_interesting(tf: Any, tmp_path: Path, write: Writer) -> None:
    """Keys that are prefixes of each other, end in 0xff or differ in one step, around every block boundary."""
    rng = np.random.default_rng(9)
    alphabet = [b"a", b"b", b"\xfe", b"\xff"]
    keys = {b"".join(alphabet[i] for i in rng.integers(0, 4, rng.integers(1, 400))) for _ in range(6000)}
    values = {key: np.array(number, np.int64) for number, key in enumerate(sorted(keys))}
    tf.raw_ops.SaveV2(
        prefix=str(tmp_path / NAME),
        tensor_names=list(values),
        shape_and_slices=[""] * len(values),
        tensors=list(map(tf.constant, values.values())),
    )

    assert_same_files(tmp_path, write({key.decode("utf-8", "surrogateescape"): v for key, v in values.items()}))


def test_an_entry_over_half_a_megabyte(tf: Any, tmp_path: Path, write: Writer) -> None:
    """A key of 600 KB forces a block of its own; small entries lie before and after it."""
    values = {"a": np.arange(3), "k" * 600_000: np.arange(4), "z": np.arange(5), "zz" * 300_000: np.arange(6)}
    save_v2(tf, tmp_path / NAME, values)

    assert_same_files(tmp_path, write(values))


@pytest.mark.parametrize("more", [-1, 0, 1])
def test_an_entry_of_half_a_megabyte_to_the_byte(tf: Any, tmp_path: Path, write: Writer, more: int) -> None:
    """Key and entry of 2 * 262,144 bytes together are the least that begin a block."""
    entry = len(encode_entry(BundleEntry(BY_NAME["int8"].enum, (300,), 0, 3, 300, 1)))
    values = {"a": np.arange(3, dtype=np.int8), "k" * (524_288 - entry + more): np.zeros(300, np.int8)}
    values["z"] = np.arange(5, dtype=np.int8)
    save_v2(tf, tmp_path / NAME, values)

    made = write(values)

    assert_same_files(tmp_path, made)


# ---------------------------------------------------------------------------------------------------- slices


@pytest.mark.parametrize("name", NUMERIC)
def test_slices(tf: Any, tmp_path: Path, write: Writer, name: str) -> None:
    """A matrix in the three pieces of the worked example, of every type, between other tensors."""
    value = _values(name, (5, 300))
    spans = {((0, 2), FULL): "0,2:-", ((2, 3), (0, 100)): "2,3:0,100", ((2, 3), (100, 200)): "2,3:100,200"}
    pieces = {
        extents: np.ascontiguousarray(value[tuple(slice(at, at + n if n >= 0 else None) for at, n in extents)])
        for extents in spans
    }
    before = _values(name, (3,))
    saved = [("z", "", _tensor(tf, name, before))]
    saved += [("w", f"5 300 {spans[extents]}", _tensor(tf, name, piece)) for extents, piece in pieces.items()]
    save_slices(tf, tmp_path / NAME, [*saved, ("a", "", _tensor(tf, name, before))])

    values = {"z": before, "w": Sliced((5, 300), pieces), "a": before}

    assert_same_files(tmp_path, write(values, dtypes=dict.fromkeys(values, name) if name.startswith("q") else None))


def test_sliced_strings_and_odd_names(tf: Any, tmp_path: Path, write: Writer) -> None:
    """Pieces out of order, names with 00 and ff bytes, large offsets in slice keys, pieces that say a whole dimension."""
    words = np.array([b"a", b"", b"ccc", b"dddd"], object)
    wide = np.arange(20_000, dtype=np.int16).reshape(2, 10_000)
    odd = b"n\xff\x00a"
    saved: list[tuple[Any, str, Any]] = [
        (odd, "4 3,1", words[3:]), (odd, "4 0,3", words[:3]),
        ("wide", "2 10000 -:8192,1808", wide[:, 8192:]), ("wide", "2 10000 0,2:0,63", wide[:, :63]),
        ("wide", "2 10000 0,2:63,8129", wide[:, 63:8192]),
    ]  # fmt: skip
    save_slices(tf, tmp_path / NAME, [(name, text, tf.constant(piece)) for name, text, piece in saved])

    values = {
        odd.decode("utf-8", "surrogateescape"): Sliced((4,), {((3, 1),): words[3:], ((0, 3),): words[:3]}),
        "wide": Sliced(
            (2, 10_000),
            {
                (FULL, (8192, 1808)): wide[:, 8192:],
                ((0, 2), (0, 63)): wide[:, :63],
                ((0, 2), (63, 8129)): wide[:, 63:8192],
            },
        ),
    }

    assert_same_files(tmp_path, write(values))


def test_a_piece_that_is_everything_is_no_slice(tf: Any, tmp_path: Path, write: Writer) -> None:
    """Spelled as whole dimensions, as all their elements, or half and half."""
    value = np.arange(6, dtype=np.float32).reshape(2, 3)
    spelled: dict[str, Any] = {"-:-": (FULL, FULL), "0,2:0,3": ((0, 2), (0, 3)), "-:0,3": (FULL, (0, 3))}
    save_slices(tf, tmp_path / NAME, [(f"t{text}", f"2 3 {text}", tf.constant(value)) for text in spelled])

    values = {f"t{text}": Sliced((2, 3), {extents: value}) for text, extents in spelled.items()}

    assert_same_files(tmp_path, write(values))


# ---------------------------------------------------------------------------------------------------- shards


def _save_parts(tf: Any, folder: Path, parts: list[list[tuple[str, str, Any]]]) -> None:
    """As a sharded save of TensorFlow's does it: every writer its part, then the merge."""
    prefixes = [str(folder / "temp" / f"part-{number:05d}-of-{len(parts):05d}") for number in range(len(parts))]
    for prefix, part in zip(prefixes, parts, strict=True):
        save_slices(tf, Path(prefix), part)
    tf.raw_ops.MergeV2Checkpoints(
        checkpoint_prefixes=prefixes, destination_prefix=str(folder / NAME), delete_old_dirs=True
    )


@pytest.mark.parametrize("count", [1, 2, 5])
def test_shards(tf: Any, tmp_path: Path, write: Writer, count: int) -> None:
    """Tensors of many types dealt to 1, 2 and 5 data files."""
    values: dict[str, Any] = {
        f"{name}/{key}": _values(name, (3,)) for name in NUMERIC if name[0] != "q" for key in "ba"
    }
    values |= {"names": np.array([b"a", b"bc"], object), "scalar": np.float32(1), "none": np.zeros((0, 3), np.int8)}
    plan = runs(list(values), count)
    _save_parts(
        tf,
        tmp_path,
        [[(key, "", _tensor_of(tf, values[key])) for key, _ in pieces] for pieces in plan],
    )

    assert_same_files(tmp_path, write(values, plan=plan))


def _tensor_of(tf: Any, value: Any) -> Any:
    array = np.asarray(value)
    return tf.constant(array) if array.dtype == object else _tensor(tf, array.dtype.name, array)


@pytest.mark.parametrize("count", [2, 5])
def test_slices_over_shards(tf: Any, tmp_path: Path, write: Writer, count: int) -> None:
    """A tensor whose pieces lie in several data files: its own entry names the first of them."""
    rows = np.arange(30, dtype=np.float32).reshape(10, 3)
    values = {"c": np.array(3), "a": rows, "w": rows, "b": rows}
    cuts = [((start, 2), (0, 3)) for start in range(0, 10, 2)]
    plan = [[Piece("w", cut) for cut in cuts[shard::count]] for shard in range(count)]
    plan = [[Piece("c"), Piece("a")], *plan[:-1], [*plan[-1], Piece("b")]]

    def saved(piece: Piece) -> tuple[str, str, Any]:
        if piece.extents is None:
            return piece.key, "", tf.constant(values[piece.key])
        (start, length), _ = piece.extents
        return piece.key, f"10 3 {start},{length}:0,3", tf.constant(rows[start : start + length])

    _save_parts(tf, tmp_path, [[saved(piece) for piece in pieces] for pieces in plan])

    assert_same_files(tmp_path, write(values, plan=plan))


@pytest.mark.parametrize("max_bytes", [100, 400, 1000, 3000])
def test_shards_of_limited_size(tf: Any, tmp_path: Path, write: Writer, max_bytes: int) -> None:
    """`tf.train.Checkpoint` with `MaxShardSizePolicy`: the same pieces in the same files, the object graph in the last."""
    shapes = [(20, 30), (7,), (), (3, 4, 5), (16,), (40, 2), (2, 3, 4, 5), (1, 1)]
    names = ["float32", "bfloat16", "int64", "bool", "complex128", "int16", "qint8", "float64"]
    variables = [
        tf.Variable(_tensor(tf, name, _values(name, shape))) for name, shape in zip(names, shapes, strict=True)
    ]
    checkpoint = tf.train.Checkpoint(
        layers=variables, name=tf.Variable(b"a name of some length"), step=tf.Variable(7, dtype=tf.int64)
    )
    options = tf.train.CheckpointOptions(
        experimental_sharding_callback=tf.train.experimental.MaxShardSizePolicy(max_bytes)
    )
    (tmp_path / "sharded").mkdir()
    checkpoint.write(str(tmp_path / "sharded" / NAME), options=options)
    values, dtypes = _in_file_order(checkpoint.write(str(tmp_path / NAME)))
    plan = plan_shards(specs_of(values, dtypes), max_bytes)

    made = write(values, plan=plan, dtypes={key: name for key, name in dtypes.items() if name == "qint8"})

    assert len(plan) > 1
    assert_same_files(tmp_path / "sharded", made)


def test_the_policy_of_the_public_face_plans_as_tensorflow_s(tf: Any, tmp_path: Path) -> None:
    """`openckpt.MaxShardSize`: strings count their bytes, one above the limit has a data file of its own at the end."""
    variables = {
        "a": tf.Variable(b"x" * 90), "b": tf.Variable(_values("float32", (6, 5))), "c": tf.Variable(b"y" * 300),
        "d": tf.Variable(b"z" * 60), "e": tf.Variable(_values("int64", (9,))),
    }  # fmt: skip
    (tmp_path / "sharded").mkdir()
    tf.train.Checkpoint(**variables).write(
        str(tmp_path / "sharded" / NAME),
        options=tf.train.CheckpointOptions(
            experimental_sharding_callback=tf.train.experimental.MaxShardSizePolicy(100)
        ),
    )
    values, _ = _in_file_order(tf.train.Checkpoint(**variables).write(str(tmp_path / "whole" / NAME)))
    (tmp_path / "ours").mkdir()

    openckpt.save(tmp_path / "ours" / NAME, values, layout="tensorflow", sharding=openckpt.MaxShardSize(100))

    made = {path.name: path.read_bytes() for path in (tmp_path / "ours").iterdir()}
    assert len(made) > 4
    assert_same_files(tmp_path / "sharded", made)


@pytest.mark.parametrize("seed", range(12))
def test_anything_in_any_order(tf: Any, tmp_path: Path, write: Writer, seed: int) -> None:
    """Random checkpoints: every type, strings, empty tensors and partitioned ones, mixed, under random names."""
    rng = np.random.default_rng(seed)
    values: dict[str, Any] = {}
    dtypes: dict[str, str] = {}
    saved: list[tuple[Any, str, Any]] = []
    for number in range(int(rng.integers(5, 40))):
        letters = rng.choice(["a", "/", "Z", "\udcff", "_", "é"], int(rng.integers(0, 9)))
        key = "".join([str(number), *letters][:: int(rng.choice([-1, 1]))])
        raw = key.encode("utf-8", "surrogateescape")
        shape = tuple(int(n) for n in rng.integers(0, 6, int(rng.integers(0, 4))))
        if rng.random() < 0.2:
            text = [rng.bytes(int(n)) for n in rng.integers(0, 300, int(np.prod(shape)))]
            values[key] = Strings(text, shape)
            saved.append((raw, "", tf.reshape(tf.constant(text, tf.string), shape)))
            continue
        name = str(rng.choice(NUMERIC))
        if name.startswith("q"):
            dtypes[key] = name
        value = _values(name, shape)
        if rng.random() < 0.6 or not value.size or not shape:
            values[key] = value
            saved.append((raw, "", _tensor(tf, name, value)))
            continue
        rows = np.unique(rng.integers(0, shape[0] + 1, 2)).tolist()
        edges = [0, *(row for row in rows if 0 < row < shape[0]), shape[0]]
        pieces = {
            ((start, stop - start), *[FULL] * (len(shape) - 1)): np.ascontiguousarray(value[start:stop])
            for start, stop in pairwise(edges)
        }
        values[key] = Sliced(shape, pieces)
        for extents, piece in pieces.items():
            saved.append((raw, f"{' '.join(map(str, shape))} {format_extents(extents)}", _tensor(tf, name, piece)))
    save_slices(tf, tmp_path / NAME, saved)

    assert_same_files(tmp_path, write(values, dtypes=dtypes))


# ---------------------------------------------------------------------------------------------------- graphs


def _train(tf: Any, model: Any, optimizer: Any) -> None:
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(model(np.ones((2, 4), np.float32)))
    gradients = tape.gradient(loss, model.trainable_variables)
    optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))


def _keras(library: Any) -> Any:
    layers = library.layers
    return library.Sequential([layers.Input((4,)), layers.Dense(3), layers.BatchNormalization(), layers.Dense(2)])


def _every_dtype(tf: Any) -> Mapping[str, Any]:
    names = [name for name in NUMERIC if name not in ("qint16", "quint16") and not name.endswith(("fnuz", "FNUZ"))]
    return {"v": tf.train.Checkpoint(**{name: tf.Variable(_tensor(tf, name, _values(name, (2, 3)))) for name in names})}


def _plain(tf: Any) -> Mapping[str, Any]:
    return {
        "b": tf.Variable([1.0, 2.0]),
        "a": tf.Variable(3),
        "nested": [tf.Variable(b"s"), {"x": tf.Variable([b"t", b""])}],
    }


def _module(tf: Any) -> Mapping[str, Any]:
    class Layer(tf.Module):
        def __init__(self, name: str) -> None:
            super().__init__(name)
            self.weight, self.bias = tf.Variable(np.ones((4, 3), np.float32)), tf.Variable(tf.zeros(3, tf.bfloat16))

    class Model(tf.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = [Layer("a"), Layer("b")]
            self.first = self.layers[0]
            self.empty = tf.Variable(np.zeros((0, 2), np.int32))

    return {"model": Model()}


def _tf_keras_slots(tf: Any) -> Mapping[str, Any]:
    import tf_keras

    model, optimizer = _keras(tf_keras), tf_keras.optimizers.legacy.Adam(0.01)
    _train(tf, model, optimizer)
    return {"model": model, "optimizer": optimizer, "step": tf.Variable(1)}


def _tf_keras_new(tf: Any) -> Mapping[str, Any]:
    import tf_keras

    model, optimizer = _keras(tf_keras), tf_keras.optimizers.Adam(0.01)
    _train(tf, model, optimizer)
    return {"model": model, "optimizer": optimizer}


def _keras_3(tf: Any) -> Mapping[str, Any]:
    import keras

    model, optimizer = _keras(keras), keras.optimizers.Adam(0.01)
    _train(tf, model, optimizer)
    return {"model": model, "optimizer": optimizer}


def _iterator(tf: Any) -> Mapping[str, Any]:
    iterator = iter(tf.data.Dataset.range(100).shuffle(10, seed=1).batch(3))
    next(iterator)
    return {"iterator": iterator, "step": tf.Variable(7)}


@pytest.mark.parametrize(
    "make",
    [_plain, _every_dtype, _module, _tf_keras_slots, _tf_keras_new, _keras_3, _iterator],
    ids=lambda make: make.__name__.strip("_"),
)
def test_object_graph_checkpoint(tf: Any, tf_keras: Any, keras: Any, tmp_path: Path, write: Writer, make: Any) -> None:
    """A `tf.train.Checkpoint`: the values in TensorFlow's order, the graph string last, give TensorFlow's files."""
    prefix = tf.train.Checkpoint(**make(tf)).save(str(tmp_path / "run" / NAME))
    Path(prefix).parent.rename(tmp_path / "saved")

    made = _rewritten(write, str(tmp_path / "saved" / Path(prefix).name))

    assert list(_in_file_order(str(tmp_path / "saved" / Path(prefix).name))[0])[-1] == GRAPH_KEY
    assert_same_files(tmp_path / "saved", {name.replace(NAME, f"{NAME}-1", 1): data for name, data in made.items()})
