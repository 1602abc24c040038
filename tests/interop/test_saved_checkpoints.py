"""What `save`, `create` and `merge_parts` write, stock TensorFlow reads: in both layouts, from every source, also after an overwrite."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import openckpt
from interop.written import assert_reads_as_tensorflow, assert_sound
from openckpt import ByGroup, MaxShardSize, TensorSpec
from trees import everything, save_tree

pytestmark = pytest.mark.interop

LAYOUTS = ("dual", "tensorflow")


def shard_of(key: str, spec: TensorSpec) -> int:
    """The same in every run."""
    return sum(key.encode("utf-8", "surrogateescape")) % 3


def is_text(key: str) -> bool:
    """Whether TensorFlow's Python can list the key: it decodes all of them strictly."""
    try:
        key.encode()
    except UnicodeEncodeError:
        return False
    return True


@pytest.fixture(scope="module")
def tree() -> Any:
    """Every type in four shapes, odd strings, odd keys."""
    # TensorFlow's Python reader crashes on more than 32 dimensions.
    return {key: value for key, value in everything().items() if is_text(key) and value[1].ndim <= 32}


# ----------------------------------------------------------------------------------------------------------- the writers


def by_save(prefix: Path, tree: Any, layout: Any) -> None:
    save_tree(prefix, tree, layout=layout)


def by_save_in_groups(prefix: Path, tree: Any, layout: Any) -> None:
    save_tree(prefix, tree, layout=layout, sharding=ByGroup(shard_of))


def by_save_of_limited_files(prefix: Path, tree: Any, layout: Any) -> None:
    save_tree(prefix, tree, layout=layout, sharding=MaxShardSize(100))


def by_saving_what_is_open(prefix: Path, tree: Any, layout: Any) -> None:
    save_tree(prefix.with_name("source"), tree, layout="tensorflow")
    with openckpt.open(prefix.with_name("source")) as ckpt:
        openckpt.save(prefix, ckpt, layout=layout)


def by_create(prefix: Path, tree: Any, layout: Any) -> None:
    specs = {key: TensorSpec(dtype, value.shape) for key, (dtype, value) in tree.items()}
    with openckpt.create(prefix, specs, layout) as writer:
        for key in sorted(tree, reverse=True):
            writer.add(key, tree[key][1])


def by_merge(prefix: Path, tree: Any, layout: Any) -> None:
    parts: list[dict[str, Any]] = [{}, {}, {}, {}]  # the last has nothing to save
    for key, value in tree.items():
        parts[shard_of(key, TensorSpec("float32", ()))][key] = value
    for number, part in enumerate(parts):
        save_tree(openckpt.part_prefix(prefix, number, len(parts)), part, layout=layout)
    openckpt.merge_parts(prefix)


def by_overwriting(prefix: Path, tree: Any, layout: Any) -> None:
    openckpt.save(prefix, {"other": 1})
    save_tree(prefix, tree, layout=layout, overwrite=True)


WRITERS: tuple[Callable[[Path, Any, Any], None], ...] = (
    by_save, by_save_in_groups, by_save_of_limited_files, by_saving_what_is_open, by_create, by_merge, by_overwriting,
)  # fmt: skip


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("write", WRITERS, ids=lambda write: write.__name__)
def test_stock_tensorflow_reads_every_value(tf: Any, tmp_path: Path, tree: Any, write: Any, layout: str) -> None:
    """`tf.train.load_checkpoint` lists the same keys, types and shapes, and returns the same values."""
    write(tmp_path / "ckpt", tree, layout)
    read = assert_reads_as_tensorflow(tf, str(tmp_path / "ckpt"))
    assert set(read) == set(tree)
    for key, (dtype, value) in tree.items():
        assert read[key].tolist() == value.tolist() or dtype not in ("string", "variant", "int64"), key
        assert dtype in ("string", "variant") or read[key].tobytes() == value.tobytes(), key
    assert_sound(tmp_path / "ckpt")


def test_one_element_of_any_bytes(tf: Any, tmp_path: Path) -> None:
    """Keys that are no text, asked for by name."""
    keys = {"\udcff\udcfe": 1, "\0a": 2, "a\0b": 3}
    for layout in LAYOUTS:
        openckpt.save(tmp_path / layout, {key: np.int32(value) for key, value in keys.items()}, layout=layout)  # type: ignore[arg-type]
        names = [key.encode("utf-8", "surrogateescape") for key in keys]
        read = tf.raw_ops.RestoreV2(
            prefix=str(tmp_path / layout), tensor_names=names, shape_and_slices=[""] * 3, dtypes=[tf.int32] * 3
        )
        assert [int(value) for value in read] == [1, 2, 3]


# ------------------------------------------------------------------------------------------------------------ the models


def copied(tf: Any, stock: str, prefix: Path, how: str, layout: Any) -> str:
    """A checkpoint of TensorFlow, object graph and all, written again."""
    with openckpt.open(stock) as ckpt:
        values, specs = {key: ckpt[key] for key in ckpt}, {key: ckpt.specs[key] for key in ckpt}
    if how == "save":
        return openckpt.save(prefix, values, layout=layout)
    if how == "create":
        with openckpt.create(prefix, specs, layout) as writer:
            for key in writer.order:
                writer.add(key, values[key])
        return str(prefix)
    for number in range(2):
        part = {key: value for n, (key, value) in enumerate(values.items()) if n % 2 == number}
        openckpt.save(openckpt.part_prefix(prefix, number, 2), part, layout=layout)
    return openckpt.merge_parts(prefix)


def of_modules(tf: Any, library: Any) -> tuple[Any, list[Any]]:
    root = tf.train.Checkpoint()
    root.net = tf.Module()
    root.net.layers = [tf.Variable(tf.random.normal((8, 16))), tf.Variable(tf.ones(16, tf.bfloat16))]
    root.net.names = tf.Variable(["a", "bb", ""])
    root.step = tf.Variable(3, dtype=tf.int64)
    return root, [*root.net.layers, root.net.names, root.step]


def of_keras(tf: Any, library: Any) -> tuple[Any, list[Any]]:
    model = library.Sequential([library.Input((4,)), library.layers.Dense(3, "relu"), library.layers.Dense(1)])
    model.compile(optimizer="adam", loss="mse")
    model.fit(np.random.rand(8, 4), np.random.rand(8, 1), epochs=1, verbose=0)
    variables = [*model.variables, *model.optimizer.variables]
    return tf.train.Checkpoint(model=model, optimizer=model.optimizer), variables


MODELS = {"tf.Module": (of_modules, None), "tf_keras": (of_keras, "tf_keras"), "keras": (of_keras, "keras")}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("how", ["save", "create", "merge"])
@pytest.mark.parametrize("kind", MODELS)
def test_objects_are_restored_and_nothing_is_left_over(
    tf: Any, tf_keras: Any, keras: Any, tmp_path: Path, kind: str, how: str, layout: str
) -> None:
    """`Checkpoint.restore(...).assert_consumed()`: variables, optimizer slots, Python state and the save counter."""
    make, library = MODELS[kind]
    root, variables = make(tf, {"tf_keras": tf_keras, "keras": keras}.get(library or ""))
    stock = root.save(str(tmp_path / "stock"))
    prefix = copied(tf, stock, tmp_path / "ours", how, layout)
    wanted = [np.array(variable) for variable in variables]
    for variable in variables:
        value = np.array(variable)
        variable.assign(np.full(value.shape, b"other", object) if value.dtype == object else np.zeros_like(value))
    root.restore(str(prefix)).assert_consumed()
    for variable, value in zip(variables, wanted, strict=True):
        assert np.array_equal(np.array(variable), value)


# --------------------------------------------------------------------------------------------------------- overwriting


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("sharding", [None, ByGroup(shard_of)], ids=["1", "3"])
def test_an_overwrite_is_seen_by_new_readers_only(tf: Any, tmp_path: Path, layout: Any, sharding: Any) -> None:
    """A reader of TensorFlow's that was open keeps the old values; one that is opened then has the new ones."""
    prefix = str(tmp_path / "ckpt")
    keys = [f"{n}/w" for n in range(6)]
    openckpt.save(prefix, {key: np.full(3, 0.0) for key in keys}, layout=layout, sharding=sharding)
    for step in (1.0, 2.0, 3.0):
        old = tf.train.load_checkpoint(prefix)
        for key in keys:  # TensorFlow opens a data file when it first reads from it
            old.get_tensor(key)
        openckpt.save(prefix, {key: np.full(4, step) for key in keys}, layout=layout, sharding=sharding, overwrite=True)
        assert [old.get_tensor(key)[0] for key in keys] == [step - 1] * 6
        new = tf.train.load_checkpoint(prefix)
        assert [new.get_tensor(key).tolist() for key in keys] == [[step] * 4] * 6
        assert_sound(prefix)


def test_an_overwrite_of_tensorflow_s_own(tf: Any, tmp_path: Path) -> None:
    """And TensorFlow overwrites ours: the last save is what is read."""
    prefix = str(tmp_path / "ckpt")
    variable = tf.Variable([1.0, 2.0])
    root = tf.train.Checkpoint(v=variable)
    root.write(prefix)
    with openckpt.open(prefix) as ckpt:
        tensors = {key: ckpt[key] * 2 if ckpt[key].dtype == np.float32 else ckpt[key] for key in ckpt}
    openckpt.save(prefix, tensors, overwrite=True)
    root.read(prefix).assert_consumed()
    assert variable.numpy().tolist() == [2.0, 4.0]
    variable.assign([5.0, 6.0])
    root.write(prefix)
    assert openckpt.load(prefix)["v/.ATTRIBUTES/VARIABLE_VALUE"].tolist() == [5.0, 6.0]


def test_tensorflow_finds_the_newest(tf: Any, tmp_path: Path) -> None:
    """By the manifest that our saves keep, and TensorFlow's own saves after them."""
    for step in (1, 2):
        openckpt.save(tmp_path / f"ckpt-{step}", {"w": step}, update_manifest=True)
    assert tf.train.latest_checkpoint(str(tmp_path)) == str(tmp_path / "ckpt-2")
    state = tf.train.get_checkpoint_state(str(tmp_path))
    assert [Path(path).name for path in state.all_model_checkpoint_paths] == ["ckpt-1", "ckpt-2"]
    assert len(state.all_model_checkpoint_timestamps) == 2
    manager = tf.train.CheckpointManager(tf.train.Checkpoint(v=tf.Variable(1.0)), str(tmp_path), max_to_keep=None)
    manager.save(checkpoint_number=3)
    assert openckpt.latest_checkpoint(tmp_path) == str(tmp_path / "ckpt-3")


# ------------------------------------------------------------------------------------------------------------ the state


def _state_paths(base: str) -> tuple[list[str], list[str], list[list[str] | None]]:
    directories = ["sub", f"{base}/sub", "", ".", "sub/", f"{base}/sub/"]
    newest = ["ckpt-2", "sub/ckpt-2", f"{base}/sub/ckpt-2", "/other/ckpt-2", "../x/ckpt-2"]
    return directories, newest, [None, ["sub/ckpt-1"], [f"{base}/sub/ckpt-1", "sub/ckpt-2"]]


def test_the_state_is_tensorflow_s_byte_for_byte(tf: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every mix of relative and absolute paths, timestamps and none; where TensorFlow refuses, so is it here."""
    from tensorflow.python.checkpoint.checkpoint_management import update_checkpoint_state_internal as stock

    monkeypatch.chdir(tmp_path)
    (tmp_path / "sub").mkdir()
    times, last = [None, [1.0], [1.5, 1e15], [0, 3], [1.7e9, 2, 3]], [None, 5.0, 7]
    compared = refused = 0
    for directory, newest, kept, at, preserved, relative in product(
        *_state_paths(str(tmp_path)), times, last, (False, True)
    ):
        absolute = [path for path in (newest, *(kept or ())) if Path(path).is_absolute()]
        if relative and (kept is None or (absolute and not Path(directory).is_absolute())):
            continue  # TensorFlow fails without a list; for the rest see the next test
        outcomes: list[Any] = []
        path = tmp_path / directory / "checkpoint"
        arguments = (directory, newest, kept if kept is None else list(kept), None, at, preserved)
        for update in (stock, openckpt.update_checkpoint_state):
            path.unlink(missing_ok=True)
            options: dict[str, Any] = {"save_relative_paths": relative}
            try:
                if update is stock:
                    options |= {"all_model_checkpoint_timestamps": at, "last_preserved_timestamp": preserved}
                    update(directory, newest, kept if kept is None else list(kept), **options)
                else:
                    update(*arguments, durability="process-crash", **options)
            except ValueError:
                outcomes.append(ValueError)
                refused += 1
            else:
                outcomes.append(path.read_bytes())
                compared += 1
        assert outcomes[0] == outcomes[1], (arguments, relative)
    assert compared > 500 and refused > 500


def test_relative_paths_are_right_where_tensorflow_goes_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a relative directory it makes paths relative twice; here an entry leads to its checkpoint (formats 4.2)."""
    monkeypatch.chdir(tmp_path)
    for directory, newest in product(("sub", "", "."), ("sub/ckpt-2", str(tmp_path / "sub" / "ckpt-2"), "ckpt-2")):
        openckpt.update_checkpoint_state(directory, newest, save_relative_paths=True)
        entry = (Path(directory) / "checkpoint").read_text().split('"')[1]
        assert not Path(entry).is_absolute()
        assert (tmp_path / directory / entry).resolve() == (tmp_path / newest).resolve()
