"""Manifests that stock TensorFlow writes are read and written back byte for byte."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from openckpt.formats.manifest import Manifest, encode_manifest, parse_manifest

pytestmark = pytest.mark.interop

NAMES = [
    "ckpt-1",
    "a b",
    'quote"s',
    "it's",
    "back\\slash",
    "caf\u00e9 \u2603 \U0001f600",
    "tab\tnew\nline\r",
    "\x01\x7f",
    "[1]*?",
]


@pytest.mark.parametrize("name", NAMES)
def test_saver_style_manifests(tf: Any, tmp_path: Path, name: str) -> None:
    """Relative and absolute paths, whatever the name holds."""
    for path in (name, f"/abs/{name}"):
        tf.compat.v1.train.update_checkpoint_state(str(tmp_path), path, ["older", path])
        data = (tmp_path / "checkpoint").read_bytes()
        parsed = parse_manifest(data, "checkpoint")
        assert parsed == Manifest(path, ("older", path))
        assert encode_manifest(parsed) == data


def test_manager_style_manifests(tf: Any, tmp_path: Path) -> None:
    """With timestamps, kept steps and the last preserved time."""
    manager = tf.train.CheckpointManager(
        tf.train.Checkpoint(v=tf.Variable(1.0)), str(tmp_path), max_to_keep=2, keep_checkpoint_every_n_hours=1e-9
    )
    for _ in range(4):
        manager.save()
    data = (tmp_path / "checkpoint").read_bytes()
    parsed = parse_manifest(data, "checkpoint")
    state = tf.train.get_checkpoint_state(str(tmp_path))

    assert encode_manifest(parsed) == data
    assert [str(tmp_path / path) for path in parsed.all_model_checkpoint_paths] == state.all_model_checkpoint_paths
    assert str(tmp_path / parsed.model_checkpoint_path) == state.model_checkpoint_path
    assert list(parsed.all_model_checkpoint_timestamps) == list(state.all_model_checkpoint_timestamps)
    assert parsed.last_preserved_timestamp == state.last_preserved_timestamp
    assert parsed.problems == ()


def test_what_we_write_tensorflow_reads(tf: Any, tmp_path: Path) -> None:
    """Every name, and times of any size."""
    ours = Manifest("/x/ckpt-1", tuple(f"/x/{name}" for name in NAMES), (0.1, 5.0, 1e300, 1795153856.773191), 2.5)
    (tmp_path / "checkpoint").write_bytes(encode_manifest(ours))
    state = tf.train.get_checkpoint_state(str(tmp_path))
    assert state.model_checkpoint_path == ours.model_checkpoint_path
    assert tuple(state.all_model_checkpoint_paths) == ours.all_model_checkpoint_paths
    assert tuple(state.all_model_checkpoint_timestamps) == ours.all_model_checkpoint_timestamps
    assert state.last_preserved_timestamp == ours.last_preserved_timestamp
