"""`Saver`: names, manifests, retention, what it refuses. Beside TensorFlow's: tests/interop/test_saver.py."""

from __future__ import annotations

import os
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest

import openckpt
from openckpt.errors import CheckpointWarning, CorruptionError, MismatchError, NotFoundError, PathNotFoundError
from openckpt.formats.manifest import Manifest, parse_manifest
from openckpt.testing import FaultyFS, PowerLossFS
from openckpt.training import Checkpoint, Saver


def manifest_of(path: Path) -> Manifest:
    return parse_manifest(path.read_bytes(), str(path))


def saver_of(value: float = 1.0, **options: Any) -> Saver:
    options = {"durability": "process-crash", **options}
    return Saver({"dense/kernel": np.full((2, 3), value), "step": 7}, **options)


def prefixes(directory: Path) -> list[str]:
    names = {path.name for path in directory.iterdir()}
    assert not [name for name in names if "openckpt" in name]
    return sorted(name.removesuffix(".index") for name in names if name.endswith(".index"))


def test_values_come_back_where_they_were(tmp_path: Path) -> None:
    """Arrays in place; a number is new in the mapping."""
    saved = saver_of(5.0).save(tmp_path / "model.ckpt")
    assert (saved, saved.step) == (str(tmp_path / "model.ckpt"), None)
    assert set(openckpt.load(saved)) == {"dense/kernel", "step"}
    variables = {"dense/kernel": np.zeros((2, 3)), "step": 0}
    kernel = variables["dense/kernel"]
    Saver(variables).restore(saved)
    assert variables["dense/kernel"] is kernel
    assert kernel.tolist() == [[5.0] * 3] * 2 and variables["step"] == 7


@pytest.mark.parametrize(
    ("pad", "step", "name"), [(False, 3, "m-3"), (True, 3, "m-00000003"), (False, np.int64(-1), "m--1"), (True, np.array(12), "m-00000012"), (True, None, "m")]
)  # fmt: skip
def test_names_of_steps(tmp_path: Path, pad: bool, step: Any, name: str) -> None:
    """A number or a variable that holds it, padded on request."""
    assert saver_of(pad_step_number=pad).save(tmp_path / "m", global_step=step) == str(tmp_path / name)


def test_the_oldest_goes_and_the_manifest_names_the_rest(tmp_path: Path) -> None:
    """Absolute paths as given, no times; one that is saved again goes to the end."""
    saver = saver_of(max_to_keep=2)
    for step in (1, 2, 1, 3):
        saver.save(tmp_path / "m", global_step=step)
    assert [os.path.basename(path) for path in saver.last_checkpoints] == ["m-1", "m-3"] == prefixes(tmp_path)
    manifest = manifest_of(tmp_path / "checkpoint")
    assert manifest.all_model_checkpoint_paths == (f"{tmp_path}/m-1", f"{tmp_path}/m-3")
    assert manifest.model_checkpoint_path == f"{tmp_path}/m-3"
    assert manifest.all_model_checkpoint_timestamps == ()


@pytest.mark.parametrize("keep", [None, 0])
def test_everything_may_stay(tmp_path: Path, keep: int | None) -> None:
    """Then the manifest names the newest only, and nothing is listed."""
    saver = saver_of(max_to_keep=keep)
    for step in range(7):
        saver.save(tmp_path / "m", global_step=step)
    assert len(prefixes(tmp_path)) == 7 and saver.last_checkpoints == []
    assert manifest_of(tmp_path / "checkpoint").all_model_checkpoint_paths == (f"{tmp_path}/m-6",)


def test_relative_paths_and_other_manifests(tmp_path: Path) -> None:
    """As asked for."""
    saver = saver_of(save_relative_paths=True)
    saver.save(tmp_path / "m", global_step=1, latest_filename="newest")
    assert manifest_of(tmp_path / "newest").all_model_checkpoint_paths == ("m-1",)
    assert not (tmp_path / "checkpoint").exists()
    assert openckpt.latest_checkpoint(tmp_path, "newest") == str(tmp_path / "m-1")


def test_a_save_without_state_is_forgotten(tmp_path: Path) -> None:
    """Not in the manifest, not in the list, and never removed."""
    saver = saver_of(max_to_keep=1)
    saver.save(tmp_path / "m", global_step=1, write_state=False)
    assert saver.last_checkpoints == [] and not (tmp_path / "checkpoint").exists()
    for step in (2, 3):
        saver.save(tmp_path / "m", global_step=step)
    assert prefixes(tmp_path) == ["m-1", "m-3"]


def test_what_is_kept_every_n_hours(tmp_path: Path) -> None:
    """Counted from the making of the saver."""
    now = [0.0]
    saver = saver_of(max_to_keep=1, keep_checkpoint_every_n_hours=1.0, clock=lambda: now[0])
    for step, minutes in enumerate((30, 61, 90, 121, 122)):
        now[0] = minutes * 60.0
        saver.save(tmp_path / "m", global_step=step)
    assert prefixes(tmp_path) == ["m-1", "m-3", "m-4"]


def test_a_new_program_says_which_it_found(tmp_path: Path) -> None:
    """With the times of the files; those that are gone are left out. Without times none is ever removed."""
    first = saver_of()
    paths = [first.save(tmp_path / "m", global_step=step) for step in range(3)]
    (tmp_path / "m-1.index").unlink()
    again = saver_of(max_to_keep=2)
    again.recover_last_checkpoints([*paths, "nowhere"])
    assert again.last_checkpoints == [paths[0], paths[2]]
    again.save(tmp_path / "m", global_step=3)
    assert prefixes(tmp_path) == ["m-2", "m-3"]
    again.set_last_checkpoints(again.last_checkpoints)
    again.save(tmp_path / "m", global_step=4)
    assert prefixes(tmp_path) == ["m-2", "m-3", "m-4"]
    again.set_last_checkpoints_with_time([(paths[2], 1.0), (f"{tmp_path}/m-3", 2.0)])
    again.save(tmp_path / "m", global_step=5)
    assert prefixes(tmp_path) == ["m-3", "m-4", "m-5"]


def test_what_a_reader_has_open_is_the_next_to_go(tmp_path: Path) -> None:
    """And its meta graph goes with it."""
    saver = saver_of(max_to_keep=1)
    path = saver.save(tmp_path / "m", global_step=1)
    (tmp_path / "m-1.meta").write_bytes(b"")
    with openckpt.open(path):
        saver.save(tmp_path / "m", global_step=2)
        assert prefixes(tmp_path) == ["m-1", "m-2"]
    saver.save(tmp_path / "m", global_step=3)
    assert not (tmp_path / "m-1.index").exists() and not (tmp_path / "m-1.meta").exists()


def test_names_that_cannot_be(tmp_path: Path) -> None:
    """ValueErrors, as TensorFlow's."""
    saver = saver_of()
    with pytest.raises(ValueError, match="latest_filename"):
        saver.save(tmp_path / "m", latest_filename="a/b")
    with pytest.raises(ValueError, match="manifest"):
        saver.save(tmp_path / "checkpoint")
    with pytest.raises(ValueError, match="None"):
        saver.restore(None)  # type: ignore[arg-type]
    saver.save(tmp_path / "checkpoint", global_step=1)
    with pytest.raises(PathNotFoundError):
        saver.restore(tmp_path / "nothing")


@pytest.mark.parametrize(
    "value",
    [{"a": np.zeros(1)}, [np.zeros(1)], Checkpoint(w=np.zeros(1)), "text", None],
    ids=lambda value: type(value).__name__,
)
def test_only_single_variables_have_names(value: Any) -> None:
    """A container or a text is refused, by its name, when the saver is made."""
    with pytest.raises(openckpt.UnsupportedError, match="thing"):
        Saver({"thing": value})


def test_a_list_of_things_without_names_is_refused() -> None:
    """NumPy arrays have none."""
    with pytest.raises(ValueError, match="no name"):
        Saver([np.zeros(1)])


def test_nothing_is_assigned_unless_everything_fits(tmp_path: Path) -> None:
    """Missing names are listed, shapes and types are compared, checksums proved."""
    path = saver_of(5.0).save(tmp_path / "m")
    kernel = np.zeros((2, 3))
    for other, error, words in (
        ({"a": np.zeros(1), "b": np.zeros(1)}, NotFoundError, "2 of 3 names"),
        ({"step": np.zeros(2, np.int64)}, MismatchError, "shape"),
        ({"step": np.float32(1)}, MismatchError, "int64"),
    ):
        with pytest.raises(error, match=words):
            Saver({"dense/kernel": kernel, **other}).restore(path)
    data = Path(f"{path}.data-00000-of-00001")
    raw = bytearray(data.read_bytes())
    raw[raw.find(np.full(6, 5.0).tobytes()) + 40] ^= 4
    data.write_bytes(raw)
    step = np.array(0)
    with pytest.raises(CorruptionError):
        Saver({"step": step, "dense/kernel": kernel}).restore(path)
    assert not kernel.any() and not step.any()


def test_casts_are_made_on_request(tmp_path: Path) -> None:
    """Between floats only."""
    path = saver_of(0.5).save(tmp_path / "m")
    kernel = np.zeros((2, 3), np.float32)
    with pytest.raises(MismatchError):
        Saver({"dense/kernel": kernel}).restore(path)
    Saver({"dense/kernel": kernel}).restore(path, cast=True)
    assert kernel.tolist() == [[0.5] * 3] * 2


def test_a_mapping_that_cannot_change_keeps_arrays_only(tmp_path: Path) -> None:
    """Numbers in it would have to be replaced."""
    path = saver_of(5.0).save(tmp_path / "m")
    kernel = np.zeros((2, 3))
    Saver(MappingProxyType({"dense/kernel": kernel})).restore(path)
    assert kernel.all()
    with pytest.raises(MismatchError, match="takes no new objects"):
        Saver(MappingProxyType({"step": 0})).restore(path)


def test_a_save_that_fails_changes_nothing() -> None:
    """At any call, with either manifest: old files and lists, and the next save works."""
    for manifest in ("checkpoint", "newest"):
        fs = PowerLossFS()
        first = saver_of(store=fs, max_to_keep=1)
        first.save("run/m", global_step=1, latest_filename=manifest)
        files = list(fs.images(limit=2))[-1]
        raised = 0
        for at in range(1, 200):
            store = FaultyFS(PowerLossFS(files), fail_at=at)
            saver = saver_of(store=store, max_to_keep=1)
            saver.set_last_checkpoints_with_time([("run/m-1", 0.0)])
            try:
                saver.save("run/m", global_step=2, latest_filename=manifest)
            except OSError:
                raised += 1
                assert saver.last_checkpoints == ["run/m-1"], store.replay
            except CheckpointWarning:
                pass  # it is saved; what should have gone stays
            if not store.fired:
                break
            saver.save("run/m", global_step=3, latest_filename=manifest)
            assert store.stat("run/m-3.index") is not None
        assert raised > 20


# -- checkpoints without a graph ------------------------------------------------------------------------------------------------


def test_a_checkpoint_restores_by_names_where_there_is_no_graph(tmp_path: Path) -> None:
    """A NumPy array is called by its way from the root; the status says what TensorFlow's says."""
    path = saver_of(5.0).save(tmp_path / "m", global_step=12)
    program = Checkpoint(dense={"kernel": np.zeros((2, 3))}, step=0)
    status = program.restore(path)
    assert status.assert_consumed() is status.assert_existing_objects_matched() is status.assert_nontrivial_match()
    assert program.dense["kernel"].all() and program.step == 7 and program.restored_step == 12
    program.late = np.zeros(1)
    with pytest.raises(AssertionError, match="late"):
        status.assert_consumed()


def test_names_that_are_missing_are_said(tmp_path: Path) -> None:
    """A warning, or an error where it is all of them; partial allows both."""
    path = saver_of(5.0).save(tmp_path / "m")
    program = Checkpoint(dense={"kernel": np.zeros((2, 3))}, other=np.zeros(1))
    with pytest.warns(openckpt.PartialRestoreWarning, match="bound 1 of 2") as said:
        program.restore(path)
    assert said[0].filename == __file__
    status = program.restore(path)
    with pytest.warns(openckpt.PartialRestoreWarning, match="bound 1 of 2"):
        program.save(tmp_path / "next")
    with pytest.raises(openckpt.NotMatchedError, match="other"):
        program.restore(path).assert_consumed()
    assert status.expect_partial() is status
    program.restore(path).expect_partial()
    program.restore(path, partial=True)
    stranger = Checkpoint(x=np.zeros(1))
    with pytest.raises(MismatchError) as caught:
        stranger.restore(path)
    assert caught.value.code == "training.nothing-matched"
    stranger.restore(path, partial=True)
    only = Checkpoint(dense={"kernel": np.zeros((2, 3))}, other=np.zeros(1))
    only.restore(path, select="dense")
    assert only.dense["kernel"].all()


def test_an_object_based_checkpoint_restores_by_full_names(tmp_path: Path) -> None:
    """Those of the objects that have one, with a warning, because they change with the code."""
    keras = pytest.importorskip("keras")
    variable = keras.Variable(np.full(3, 4.0, np.float32), name="v")
    path = Checkpoint(v=variable).save(tmp_path / "c")
    target = np.zeros(3, np.float32)
    with pytest.warns(CheckpointWarning, match="names") as said:
        Saver({variable.path: target}).restore(path)
    assert said[0].filename == __file__
    assert target.tolist() == [4.0] * 3
    other = keras.Variable(np.zeros(3, np.float32), name="v")
    with pytest.warns(CheckpointWarning):
        Saver([other]).restore(path)
    with pytest.raises(ValueError, match="two variables"):
        Saver([other, variable])


def test_a_checkpoint_that_is_spelled_in_another_way_is_the_same_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the newest would go as the oldest, the moment it is saved."""
    monkeypatch.chdir(tmp_path)
    saver = Saver({"w": np.zeros(1)}, max_to_keep=2, durability="process-crash")
    for path in ("m-1", "m-2", "./m-1"):
        saver.save(path)
    assert saver.last_checkpoints == ["m-2", "./m-1"]
    assert sorted(path.name for path in tmp_path.glob("*.index")) == ["m-1.index", "m-2.index"]


@pytest.mark.parametrize("step", ["steps", "steps:0", "7"])
def test_a_step_may_be_the_name_of_a_variable(step: str, tmp_path: Path) -> None:
    """As TensorFlow takes the name of a value."""
    assert Saver({"w": np.zeros(1), "steps": np.array(7)}).save(tmp_path / "m", step) == str(tmp_path / "m-7")
    with pytest.raises(ValueError):
        Saver({"w": np.zeros(1)}).save(tmp_path / "m", "steps")


def test_a_saver_of_nothing_is_refused() -> None:
    """As in TensorFlow."""
    for nothing in ({}, []):
        with pytest.raises(ValueError):
            Saver(nothing)
