"""The page for those who know tf.train has every name of theirs, and only names of ours that are there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

import openckpt

pytestmark = pytest.mark.interop

PAGE = (Path(__file__).parents[2] / "docs" / "reference" / "if-you-know-tf-train.md").read_text("utf-8")
ABOUT = re.compile("heckpoint|[Ss]aver|Variable|variable|PythonState")
NOT_CHECKPOINTS = {"SummarySaverHook", "VocabInfo"}


def words(text: str) -> set[str]:
    return {word for quoted in re.findall(r"`([^`]+)`", text) for word in re.findall(r"\w+", quoted)}


def section(title: str) -> str:
    return PAGE.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def test_every_name_of_tensorflows_is_on_the_page(tf: Any) -> None:
    """Functions and classes, and the public members of the classes."""
    names = {
        name
        for module in (tf.train, tf.train.experimental, tf.compat.v1.train)
        for name in dir(module)
        if not name.startswith("_") and ABOUT.search(name)
    }
    assert names - NOT_CHECKPOINTS <= words(PAGE)
    for title, kind in (
        ("Checkpoint", tf.train.Checkpoint),
        ("CheckpointManager", tf.train.CheckpointManager),
        ("Saver", tf.compat.v1.train.Saver),
        ("CheckpointOptions", tf.train.CheckpointOptions),
    ):
        members = {name for name in dir(kind) if not name.startswith("_")} - {"read", "write", "sync"}
        assert members <= words(section(title)), title


def test_what_the_page_calls_ours_is_there() -> None:
    """Each name of the second column, and each code."""
    from openckpt.codes import CATALOGUE

    rows = [line.split("|") for line in PAGE.partition("\n## ")[0].splitlines() if line.startswith("| `")]
    for row in rows:
        for name in re.findall(r"`(?:openckpt\.)?(\w+)", row[2]):
            if name not in ("state_dict", "load_state_dict", "openckpt"):
                assert hasattr(openckpt, name), name
    for code in re.findall(r"`(training\.[\w-]+)`", PAGE):
        assert code in CATALOGUE, code
    for member in ("best_checkpoint", "steps", "pin", "is_primary"):
        assert hasattr(openckpt.CheckpointManager, member)
