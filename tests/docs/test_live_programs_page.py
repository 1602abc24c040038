"""The examples of the page of live programs are what is written."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import openckpt
from openckpt.errors import Where
from openckpt.training.pystate import decode_state, encode_state

PAGE = Path(__file__).parents[2] / "docs" / "format" / "live-programs.md"


def json_blocks() -> list[Any]:
    return [json.loads(block) for block in re.findall(r"```json\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)]


@pytest.mark.torch
@pytest.mark.jax
@pytest.mark.filterwarnings("ignore::DeprecationWarning:(?!openckpt)")
def test_the_page_shows_every_kind_of_text() -> None:
    """Each tag, as the encoder writes it and the decoder reads it."""
    jax: Any = pytest.importorskip("jax")
    import torch

    shown = json_blocks()[0]
    state = {
        "epoch": 3, "best": float("inf"), "betas": (0.9, 0.999), "raw": b"\0", "z": 1 + 2j, "milestones": Counter({30: 1}),
        "by_id": {0: "a"}, "mask": np.ones(2), "loss": np.float32(3),
        "names": np.array(["a"]), "t": torch.ones(2), "key": jax.random.key(0),
    }  # fmt: skip

    text, arrays = encode_state(state, Where(""))

    assert json.loads(text) == shown
    assert list(arrays) == ["mask", "loss", "names", "t", "key"]
    found = decode_state(json.dumps(shown).encode(), arrays, Where(""))
    assert found.keys() == state.keys() and torch.equal(found["t"], state["t"]) and found["betas"] == state["betas"]


@pytest.mark.torch
@pytest.mark.filterwarnings("ignore:::torch.*")
def test_the_page_shows_the_state_of_a_torch_optimizer(tmp_path: Path) -> None:
    """Settings that the page leaves out aside."""
    import torch

    shown = json_blocks()[1]
    model = torch.nn.Linear(2, 1)
    groups = [{"params": [model.weight], "lr": 0.5}, {"params": [model.bias]}]
    optimizer = torch.optim.SGD(groups, lr=0.1, momentum=0.9)
    path = openckpt.Checkpoint(model=model, optimizer=optimizer).write(tmp_path / "ckpt")

    state = json.loads(openckpt.load(path)["optimizer/.ATTRIBUTES/py_state"].item())
    state["param_groups"] = [{name: group[name] for name in ("lr", "momentum")} for group in state["param_groups"]]
    assert state == shown


@pytest.mark.jax
@pytest.mark.filterwarnings("ignore::DeprecationWarning:(?!openckpt)")
def test_the_page_shows_random_keys(tmp_path: Path) -> None:
    """Their data, and who makes numbers of them."""
    import jax

    path = openckpt.Checkpoint(key=jax.random.key(0)).write(tmp_path / "ckpt")

    stored = openckpt.load(path)
    assert json.loads(stored["key/.ATTRIBUTES/py_state"].item()) == json_blocks()[2]
    assert stored["key/data/.ATTRIBUTES/VARIABLE_VALUE"].dtype == np.uint32
