"""TensorFlow's functions, without TensorFlow; compared with it in tests/interop/test_tensorflow_api.py."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import openckpt
from openckpt.errors import CheckpointWarning, UnsafeError
from openckpt.formats.bundle import encode_bundle
from openckpt.formats.v1 import encode_v1
from openckpt.opening import tensorflow_api

VALUES = {"b": np.arange(6, dtype=np.float16).reshape(2, 3), "a": np.array(7, np.int64), "s": np.array(b"hi", object)}


def save(directory: Path, name: str, *, manifest: str | None = None) -> Path:
    for file, data in encode_bundle(VALUES, name).items():
        (directory / file).write_bytes(data)
    if manifest is not None:
        (directory / "checkpoint").write_text(f'model_checkpoint_path: "{manifest}"\n')
    return directory / name


def test_reader_has_tensorflows_methods(tmp_path: Path) -> None:
    """Shapes as lists, numpy dtypes, numpy scalars for scalars, bytes for strings."""
    prefix = save(tmp_path, "ckpt-1", manifest="ckpt-1")
    reader = openckpt.load_checkpoint(tmp_path)
    assert reader.get_variable_to_shape_map() == {"a": [], "b": [2, 3], "s": []}
    dtypes = reader.get_variable_to_dtype_map()
    assert dtypes == {"a": np.dtype("int64"), "b": np.dtype("float16"), "s": np.dtype(object)}
    assert reader.has_tensor("a") and reader.has_tensor(b"a") and not reader.has_tensor("x")
    assert isinstance(reader.get_tensor("a"), np.int64) and reader.get_tensor(b"s") == b"hi"
    assert reader.get_tensor("b").shape == (2, 3)  # type: ignore[union-attr]
    assert reader.debug_string() == b"a (DT_INT64) []\nb (DT_HALF) [2,3]\ns (DT_STRING) []\n"
    assert openckpt.NewCheckpointReader(str(prefix)).get_tensor("a") == 7
    with pytest.raises(openckpt.NotFoundError):
        reader.get_tensor("x")
    reader.checkpoint.close()


def test_lists_and_loads_by_directory_and_prefix(tmp_path: Path) -> None:
    """`list_variables` is sorted; `load_variable` strips a trailing ``:0``."""
    prefix = save(tmp_path, "ckpt-1", manifest="ckpt-1")
    for path in (tmp_path, prefix, str(prefix)):
        assert openckpt.list_variables(path) == [("a", []), ("b", [2, 3]), ("s", [])]
        assert openckpt.load_variable(path, "a:0") == 7


def test_state_joins_relative_paths(tmp_path: Path) -> None:
    """Relative entries are joined to the directory, absolute ones kept; nothing is looked up."""
    (tmp_path / "checkpoint").write_text(
        'model_checkpoint_path: "ckpt-2"\nall_model_checkpoint_paths: "/abs/ckpt-1"\nall_model_checkpoint_paths: "ckpt-2"\n'
    )
    state = openckpt.get_checkpoint_state(tmp_path)
    assert state is not None
    assert state.model_checkpoint_path == f"{tmp_path}/ckpt-2"
    assert state.all_model_checkpoint_paths == ("/abs/ckpt-1", f"{tmp_path}/ckpt-2")
    assert openckpt.get_checkpoint_state(tmp_path, "other") is None


def test_stale_manifest_gives_none_and_a_warning(tmp_path: Path) -> None:
    """Only the newest entry counts, as in TensorFlow, which logs what we warn of."""
    save(tmp_path, "ckpt-1", manifest="ckpt-2")
    with pytest.warns(CheckpointWarning, match="ckpt-2"):
        assert openckpt.latest_checkpoint(tmp_path) is None
    with pytest.warns(CheckpointWarning), pytest.raises(ValueError, match="Couldn't find"):
        openckpt.load_checkpoint(tmp_path)


@pytest.mark.parametrize("data", [b"", b"\n", b'all_model_checkpoint_paths: "a"\n'])
def test_manifest_without_a_newest_is_a_value_error(tmp_path: Path, data: bytes) -> None:
    """TensorFlow's ValueError, also for an empty file."""
    (tmp_path / "checkpoint").write_bytes(data)
    with pytest.raises(ValueError, match="Invalid checkpoint state"):
        openckpt.latest_checkpoint(tmp_path)


@pytest.mark.parametrize("data", [b"not a manifest", b'model_checkpoint_path: "a"\nfuture_field: 1\n'])
def test_manifest_that_does_not_parse_is_ignored_with_a_warning(tmp_path: Path, data: bytes) -> None:
    """An unknown field makes TensorFlow ignore the whole file; so do these functions, and say so."""
    (tmp_path / "checkpoint").write_bytes(data)
    with pytest.warns(CheckpointWarning, match="ignore"):
        assert openckpt.get_checkpoint_state(tmp_path) is None


def test_a_sweep_between_two_looks_gives_the_newer_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The manifest named ckpt-1; before it is looked for, a trainer has saved ckpt-2 and deleted ckpt-1."""
    save(tmp_path, "ckpt-1", manifest="ckpt-1")
    look = tensorflow_api.checkpoint_exists

    def after_a_save(path: str) -> bool:
        if path.endswith("ckpt-1"):
            save(tmp_path, "ckpt-2", manifest="ckpt-2")
            for file in tmp_path.glob("ckpt-1.*"):
                file.unlink()
        return look(path)

    monkeypatch.setattr(tensorflow_api, "checkpoint_exists", after_a_save)
    assert openckpt.latest_checkpoint(tmp_path) == str(tmp_path / "ckpt-2")


def test_a_sweep_before_the_open_loads_the_newer_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """load_checkpoint of a directory asks the manifest again when what it named is deleted before it is opened."""
    save(tmp_path, "ckpt-2", manifest="ckpt-2")
    answers = iter([str(tmp_path / "ckpt-1"), str(tmp_path / "ckpt-2")])
    monkeypatch.setattr(tensorflow_api, "latest_checkpoint", lambda _: next(answers))
    with openckpt.load_checkpoint(tmp_path) as reader:
        assert reader.get_variable_to_shape_map()


def test_manifest_that_is_not_utf8_is_a_unicode_error(tmp_path: Path) -> None:
    """TensorFlow lets it through."""
    (tmp_path / "checkpoint").write_bytes(b'model_checkpoint_path: "\xff"')
    with pytest.raises(UnicodeDecodeError):
        openckpt.latest_checkpoint(tmp_path)


def test_manifest_does_not_open_another_directory(tmp_path: Path) -> None:
    """latest_checkpoint answers like TensorFlow; opening what a file names elsewhere is refused (promise P5)."""
    (tmp_path / "run").mkdir()
    (tmp_path / "other").mkdir()
    prefix = save(tmp_path / "other", "ckpt-1")
    (tmp_path / "run/checkpoint").write_text(f'model_checkpoint_path: "{prefix}"\n')
    assert openckpt.latest_checkpoint(tmp_path / "run") == str(prefix)
    with pytest.raises(UnsafeError) as caught:
        openckpt.load_checkpoint(tmp_path / "run")
    assert caught.value.code == "path.outside"


def test_brackets_do_not_hide_a_checkpoint(tmp_path: Path) -> None:
    """Where TensorFlow takes the path for a pattern we read it as it stands."""
    prefix = save(tmp_path, "a[1]", manifest="a[1]")
    assert openckpt.latest_checkpoint(tmp_path) == str(prefix)
    assert openckpt.checkpoint_exists(prefix)
    assert not openckpt.checkpoint_exists(tmp_path / "a*")


def test_index_wins_over_a_file_of_the_same_name(tmp_path: Path) -> None:
    """TensorFlow looks for NAME.index before NAME."""
    prefix = save(tmp_path, "both")
    for file, data in encode_v1({"v": np.float32([1])}, "both").items():
        (tmp_path / file).write_bytes(data)
    assert openckpt.NewCheckpointReader(prefix).has_tensor("a")
    with openckpt.open(prefix) as ckpt:
        assert list(ckpt) == ["v"]


def test_sharded_v1_pattern_exists_and_loads(tmp_path: Path) -> None:
    """The pattern that manifests of sharded V1 checkpoints hold keeps its meaning."""
    for file, data in encode_v1({"u": np.float32([1]), "v": np.float32([2])}, "m", shards=2).items():
        (tmp_path / file).write_bytes(data)
    pattern = tmp_path / "m-?????-of-00002"
    (tmp_path / "checkpoint").write_text(f'model_checkpoint_path: "{pattern}"\n')
    assert openckpt.checkpoint_exists(pattern)
    assert not openckpt.checkpoint_exists(tmp_path / "m-?????-of-00003")
    assert openckpt.latest_checkpoint(tmp_path) == str(pattern)
    assert openckpt.list_variables(tmp_path) == [("u", [1]), ("v", [1])]


def test_absent_prefix_is_a_file_not_found_error(tmp_path: Path) -> None:
    """Where TensorFlow raises its NotFoundError."""
    with pytest.raises(FileNotFoundError):
        openckpt.load_checkpoint(tmp_path / "none")
    with pytest.raises(FileNotFoundError):
        openckpt.NewCheckpointReader(tmp_path / "none")
