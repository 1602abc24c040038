"""Our latest_checkpoint, load_checkpoint and friends beside TensorFlow's, over a table of directories."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import openckpt
from openckpt.formats.bundle import encode_bundle
from openckpt.formats.v1 import encode_v1

pytestmark = pytest.mark.interop

V2 = encode_bundle({"a": np.float32([1, 2]), "b": np.array(3, np.int64)}, "x")
V1 = encode_v1({"a": np.float32([1, 2]), "b": np.array(3, np.int64)}, "x")


def v2(name: str) -> dict[str, bytes]:
    return {name + file[1:]: data for file, data in V2.items()}


def v1(name: str) -> dict[str, bytes]:
    return {name + file[1:]: data for file, data in V1.items()}


def names(newest: str, *others: str) -> bytes:
    lines = [f'model_checkpoint_path: "{newest}"', *(f'all_model_checkpoint_paths: "{name}"' for name in others)]
    return ("\n".join(lines) + "\n").encode()


# name -> files; "{dir}" in a manifest stands for the absolute path of the directory.
DIRECTORIES: dict[str, dict[str, bytes]] = {
    "empty": {},
    "no-manifest": v2("ckpt-1"),
    "relative": {**v2("ckpt-1"), "checkpoint": names("ckpt-1", "ckpt-1")},
    "absolute": {**v2("ckpt-1"), "checkpoint": names("{dir}/ckpt-1", "{dir}/ckpt-1")},
    "stale": {**v2("ckpt-1"), "checkpoint": names("ckpt-2", "ckpt-1", "ckpt-2")},
    "older-than-listed": {**v2("ckpt-1"), **v2("ckpt-9"), "checkpoint": names("ckpt-1", "ckpt-1")},
    "index-only": {"ckpt-1.index": V2["x.index"], "checkpoint": names("ckpt-1")},
    "data-only": {"ckpt-1.data-00000-of-00001": b"1234", "checkpoint": names("ckpt-1")},
    "v1": {**v1("model"), "checkpoint": names("model")},
    "v1-and-v2": {**v1("model"), **v2("model"), "checkpoint": names("model")},
    "v1-sharded": {**v1("model-00000-of-00001"), "checkpoint": names("model-?????-of-00001")},
    "v1-sharded-gone": {**v1("model-00000-of-00001"), "checkpoint": names("model-?????-of-00002")},
    "prefix-called-checkpoint": {**v2("checkpoint"), "checkpoint": names("checkpoint")},
    "below": {**v2("sub/ckpt-1"), "checkpoint": names("sub/ckpt-1")},
    "dotted": {**v2("ckpt-1"), "checkpoint": names("./ckpt-1")},
    "up-and-down": {**v2("ckpt-1"), "checkpoint": names("../up-and-down/ckpt-1")},
    "empty-basename": {".index": V2["x.index"], ".data-00000-of-00001": V2["x.data-00000-of-00001"], "checkpoint": names("./")},
    "names-a-directory": {**v2("sub/ckpt-1"), "checkpoint": names("sub")},
    "windows": {**v2("ckpt-1"), "checkpoint": names("C:\\\\run\\\\ckpt-1")},
    "zero-length": {"checkpoint": b""},
    "white-space": {"checkpoint": b" \n\t\n"},
    "comment": {"checkpoint": b"# nothing\n"},
    "no-newest": {"checkpoint": b'all_model_checkpoint_paths: "a"\n'},
    "empty-newest": {"checkpoint": names("")},
    "unknown-field": {**v2("ckpt-1"), "checkpoint": names("ckpt-1") + b"more: 1\n"},
    "garbage": {"checkpoint": b"garbage {"},
    "lfs": {"checkpoint": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"},
    "not-utf8": {"checkpoint": b'model_checkpoint_path: "\xff"\n'},
    "bytes-escaped": {"checkpoint": b'model_checkpoint_path: "\\377"\n'},
    "escapes": {**v2("c k'pt-1"), "checkpoint": b'model_checkpoint_path: "c\\040k\\\'pt-\\x31"\n'},
    "utf8": {**v2("mod\u00e8le-1"), "checkpoint": 'model_checkpoint_path: "mod\u00e8le-1"\n'.encode()},
    "byte-order-mark": {**v2("ckpt-1"), "checkpoint": b"\xef\xbb\xbf" + names("ckpt-1")},
    "crlf": {**v2("ckpt-1"), "checkpoint": names("ckpt-1").replace(b"\n", b"\r\n")},
    "twice": {**v2("ckpt-1"), "checkpoint": names("ckpt-0") + names("ckpt-1")},
    "one-line": {**v2("ckpt-1"), "checkpoint": b"model_checkpoint_path: 'ckpt-' \"1\", all_model_checkpoint_paths: ['a', 'b']"},
    "timestamps": {
        **v2("ckpt-1"),
        "checkpoint": names("ckpt-1", "ckpt-1") + b"all_model_checkpoint_timestamps: 1.5\nlast_preserved_timestamp: 1e3\n",
    },
}  # fmt: skip
GLOB_DEFECTS = {
    "brackets": {**v2("a[1]"), "checkpoint": names("a[1]")},
    "star": {**v2("ckpt-1"), "checkpoint": names("*")},
}


def make(root: Path, name: str, files: dict[str, bytes]) -> Path:
    directory = root / name
    directory.mkdir()
    for file, data in files.items():
        path = directory / file
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data.replace(b"{dir}", os.fsencode(directory)) if file == "checkpoint" else data)
    return directory


def answer(function: Callable[[], Any]) -> Any:
    """Return what a call gives, or the name of the kind of error that stands for TensorFlow's own."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return function()
        except (ValueError, FileNotFoundError) as error:
            return "NotFoundError" if isinstance(error, FileNotFoundError) else type(error).__name__
        except Exception as error:
            return type(error).__name__


def state_of(state: Any) -> Any:
    if state is None or isinstance(state, str):
        return state
    return (
        state.model_checkpoint_path,
        list(state.all_model_checkpoint_paths),
        list(state.all_model_checkpoint_timestamps),
        state.last_preserved_timestamp,
    )


@pytest.mark.parametrize("name", DIRECTORIES)
def test_latest_and_state_as_tensorflow(tf: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """The same path, None or kind of error, for an absolute and for a relative directory."""
    directory = make(tmp_path, name, DIRECTORIES[name])
    monkeypatch.chdir(tmp_path)
    for where in (str(directory), name, name + "/", directory):
        theirs = answer(lambda: tf.train.latest_checkpoint(where))  # noqa: B023
        assert answer(lambda: openckpt.latest_checkpoint(where)) == theirs  # noqa: B023
        state = state_of(answer(lambda: tf.train.get_checkpoint_state(where)))  # noqa: B023
        assert state_of(answer(lambda: openckpt.get_checkpoint_state(where))) == state  # noqa: B023


@pytest.mark.parametrize("name", [name for name in DIRECTORIES if name not in ("data-only", "names-a-directory")])
def test_variables_of_a_directory_as_tensorflow(tf: Any, tmp_path: Path, name: str) -> None:
    """The same listing, or the same kind of error."""
    directory = make(tmp_path, name, DIRECTORIES[name])
    theirs = answer(lambda: tf.train.list_variables(str(directory)))
    assert answer(lambda: openckpt.list_variables(directory)) == theirs


@pytest.mark.parametrize("name", ["relative", "v1", "v1-sharded", "v1-and-v2", "prefix-called-checkpoint"])
def test_reader_as_tensorflow(tf: Any, tmp_path: Path, name: str) -> None:
    """The maps, has_tensor, values with their types, the debug string."""
    directory = make(tmp_path, name, DIRECTORIES[name])
    theirs, ours = tf.train.load_checkpoint(str(directory)), openckpt.load_checkpoint(directory)
    assert ours.get_variable_to_shape_map() == theirs.get_variable_to_shape_map()
    dtypes = {key: dtype.as_numpy_dtype for key, dtype in theirs.get_variable_to_dtype_map().items()}
    assert ours.get_variable_to_dtype_map() == dtypes
    # Of a V1 checkpoint TensorFlow prints its hash map, in no order.
    assert sorted(ours.debug_string().splitlines()) == sorted(theirs.debug_string().splitlines())
    for key in ("a", "b", "c"):
        assert ours.has_tensor(key) == theirs.has_tensor(key)
        mine, other = answer(lambda: ours.get_tensor(key)), answer(lambda: theirs.get_tensor(key))  # noqa: B023
        assert type(mine) is type(other)
        assert np.array_equal(mine, other)
        mine = answer(lambda: openckpt.load_variable(directory, f"{key}:0"))  # noqa: B023
        assert np.array_equal(mine, answer(lambda: tf.train.load_variable(str(directory), f"{key}:0")))  # noqa: B023


def test_what_tensorflow_saves_is_read_with_the_same_types(tf: Any, tmp_path: Path) -> None:
    """Scalars of every common type, strings and empty tensors come back as TensorFlow's reader gives them."""
    values = {
        "f": 1.5, "v": [1, 2], "s": "abc", "e": np.zeros((0, 3)), "t": True, "h": np.float16(2), "c": 1 + 2j,
        "i": np.int8(3), "l": ["x", "yz"], "g": tf.constant(1.5, tf.bfloat16),
    }  # fmt: skip
    prefix = tf.train.Checkpoint(**{key: tf.Variable(value) for key, value in values.items()}).save(f"{tmp_path}/ckpt")
    theirs, ours = tf.train.load_checkpoint(prefix), openckpt.load_checkpoint(prefix)
    assert ours.debug_string() == theirs.debug_string()
    for key in theirs.get_variable_to_shape_map():
        mine, other = ours.get_tensor(key), theirs.get_tensor(key)
        assert type(mine) is type(other) and np.array_equal(mine, other), key
        assert getattr(mine, "dtype", None) == getattr(other, "dtype", None)
    assert openckpt.latest_checkpoint(tmp_path) == tf.train.latest_checkpoint(str(tmp_path)) == prefix


def test_existence_as_tensorflow(tf: Any, tmp_path: Path) -> None:
    """V2 by its index, V1 by its file, a directory by itself, nothing else."""
    directory = make(tmp_path, "d", {**v2("two"), **v1("one"), "three.meta": b"", "four.data-00000-of-00001": b""})
    exists = tf.compat.v1.train.checkpoint_exists
    for name in ("two", "one", "three", "four", "two.index", "two.data-00000-of-00001", "none", "", "no/dir"):
        path = f"{directory}/{name}"
        assert openckpt.checkpoint_exists(path) == exists(path), name


@pytest.mark.parametrize("name", GLOB_DEFECTS)
def test_where_we_differ_on_purpose(tf: Any, tmp_path: Path, name: str) -> None:
    """A path is a path: brackets hide nothing, and a star is no checkpoint."""
    directory = make(tmp_path, name, GLOB_DEFECTS[name])
    ours = answer(lambda: openckpt.latest_checkpoint(directory))
    theirs = answer(lambda: tf.train.latest_checkpoint(str(directory)))
    assert (ours, theirs) == {
        "brackets": (f"{directory}/a[1]", None),
        "star": (None, f"{directory}/*"),
    }[name]


@pytest.mark.parametrize(
    ("missing", "kind"), [("nothing", "NotFoundError"), ("nothing/at/all", "NotFoundError"), ("d", "ValueError")]
)
def test_misses_as_tensorflow(tf: Any, tmp_path: Path, missing: str, kind: str) -> None:
    """NotFoundError for a path, ValueError for a directory without a manifest."""
    make(tmp_path, "d", v2("ckpt-1"))
    path = f"{tmp_path}/{missing}"
    assert answer(lambda: tf.train.load_checkpoint(path)) == kind
    assert answer(lambda: openckpt.load_checkpoint(path)) == kind
