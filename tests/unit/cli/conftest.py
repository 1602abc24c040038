"""Small checkpoints for the command line, and a way to run it."""

from __future__ import annotations

from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from openckpt.formats.bundle import Strings, Variants, encode_bundle
from openckpt.formats.manifest import Manifest, encode_manifest
from openckpt.storage.writing import write_folder
from unit.cli.running import Runner

EVIL = "evil\x1b]0;owned\x07\x1b[2J\n\u202e"
"""A tensor name that would set the window's title, clear the screen and turn the text around."""


@pytest.fixture
def openckpt_cli(capsys: pytest.CaptureFixture[str]) -> Runner:
    """The program, run in this process."""
    return Runner(capsys)


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    """A run with two complete steps and a manifest."""
    folder = tmp_path / "run"
    for step in (1, 2):
        tensors = {
            "dense/kernel": np.arange(12, dtype="f4").reshape(3, 4) * step,
            "dense/bias": np.zeros(4, dtype="f4"),
            "step": np.int64(step),
        }
        write_folder(str(folder), encode_bundle(tensors, f"ckpt-{step}", shards=2))
    manifest = Manifest("ckpt-2", ("ckpt-1", "ckpt-2"))
    write_folder(str(folder), {"checkpoint": encode_manifest(manifest)})
    return folder


@pytest.fixture
def zoo(tmp_path: Path) -> Path:
    """A prefix with a tensor of every kind, odd names included."""
    tensors = {
        "normal": np.random.default_rng(0).normal(size=1000).astype("f4"),
        "holes": np.array([1, np.nan, np.inf, -np.inf, 0]),
        "flags": np.array([True, False, True]),
        "complex": np.array([3 + 4j, complex(0, float("nan"))]),
        "brain": np.array([1.5, 2.25, -3], dtype=ml_dtypes.bfloat16),
        "nibbles": np.array([-8, 7, 0], dtype=ml_dtypes.int4),
        "words": Strings([b"hello", b"\xff\xfe", b"\x1b[31mred"], (3,)),
        "no-words": Strings([], (0,)),
        "opaque": Variants([b"abc" * 40]),
        "scalar": np.float32(3.5),
        "empty": np.zeros((0, 3), "f4"),
        "big": np.array([2**64 - 1, 0], dtype="u8"),
        "w[0]": np.zeros(2, "f4"),
        EVIL: np.zeros(2, "f4"),
        b"\xff\xfekey": np.zeros(2, "f4"),
        "日本語": np.zeros(2, "f4"),
    }
    write_folder(str(tmp_path), encode_bundle(tensors, "zoo-9"))
    return tmp_path / "zoo-9"


@pytest.fixture
def damaged(run_folder: Path) -> Path:
    """The prefix of a step one of whose tensors has a flipped byte."""
    shard = run_folder / "ckpt-2.data-00000-of-00002"
    data = bytearray(shard.read_bytes())
    data[5] ^= 0x10
    shard.write_bytes(bytes(data))
    return run_folder / "ckpt-2"
