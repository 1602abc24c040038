"""What a restore will take, and whether a directory can be saved to, before anything happens."""

from __future__ import annotations

import errno
import itertools
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import openckpt
from openckpt.errors import ConflictError, MismatchError, NotFoundError
from openckpt.storage.disk import DISK
from openckpt.testing import FaultyFS
from openckpt.training import Checkpoint
from peaks import traced_peak

MIB = 1 << 20


def arrays(count: int, *, writable: bool = True) -> list[Any]:
    made = [np.ones(3 * MIB, np.float64) for _ in range(count)]
    for array in made:
        array.flags.writeable = writable
    return made


@pytest.mark.parametrize("writable", [True, False], ids=["in place", "replaced"])
def test_a_restore_takes_no_more_memory_than_planned(tmp_path: Path, writable: bool) -> None:
    """Into the arrays that are there: next to nothing; one copy of those that cannot be written to."""
    path = Checkpoint(a=arrays(5)).write(tmp_path / "ckpt", durability="process-crash")
    ckpt = Checkpoint(a=arrays(5, writable=writable), n=[0, 1.5])
    plan = ckpt.plan_restore(path)

    peak = traced_peak(lambda: ckpt.read(path, partial=True))

    assert (plan.values, plan.nbytes) == (5, 5 * 24 * MIB)
    assert plan.replaced_nbytes == (0 if writable else plan.nbytes)
    assert peak <= plan.peak_nbytes <= (64 * MIB if writable else plan.nbytes + 64 * MIB)


@pytest.mark.parametrize(("stored", "own"), [("float64", "float32"), ("float32", "float64")])
def test_a_cast_takes_one_copy_of_the_largest_tensor(stored: str, own: str, tmp_path: Path) -> None:
    """What was read, and not what it was cast to: that is the program's own memory. Not two tensors at a time either."""
    made = [np.full(9 * MIB, n + 0.5, stored) for n in range(3)]
    path = Checkpoint(a=made).write(tmp_path / "ckpt", durability="process-crash")
    live = [np.zeros(9 * MIB, own) for _ in made]
    ckpt = Checkpoint(a=live)
    plan = ckpt.plan_restore(path, cast=True)

    peak = traced_peak(lambda: ckpt.read(path, cast=True))

    assert peak <= plan.peak_nbytes <= made[0].nbytes + 8 * MIB
    assert ckpt.a[2] is live[2] and all((array == n + 0.5).all() for n, array in enumerate(live))


def test_a_tensor_that_is_stored_in_pieces_is_put_together_in_place(tmp_path: Path) -> None:
    """One piece at a time is copied, and never the whole."""
    value = np.arange(8 * MIB, dtype=np.float64)
    path = openckpt.save(
        tmp_path / "ckpt", {"a": value}, sharding=openckpt.MaxShardSize(8 * MIB), durability="process-crash"
    )
    ckpt = Checkpoint(a=np.zeros_like(value))

    peak = traced_peak(lambda: ckpt.read(path))

    assert np.array_equal(ckpt.a, value)
    assert peak <= min(ckpt.plan_restore(path).peak_nbytes, 12 * MIB)


def test_planning_changes_nothing_and_refuses_what_a_restore_would(tmp_path: Path) -> None:
    """Nothing is assigned; what does not fit is an error here too."""
    path = Checkpoint(a=np.ones(3)).write(tmp_path / "ckpt")
    live = np.zeros(3)

    plan = Checkpoint(a=live).plan_restore(path)

    assert not live.any() and "1 values" in str(plan)
    with pytest.raises(MismatchError):
        Checkpoint(a=np.zeros(4)).plan_restore(path)


def test_a_restore_by_names_and_one_of_a_part_are_planned_too(tmp_path: Path) -> None:
    """What has no object graph is planned by its names; of a part nothing else is counted."""
    named = openckpt.save(tmp_path / "named", {"a": np.ones(3), "b/c": np.ones(4), "more": np.ones(5)})
    ckpt = Checkpoint(a=np.zeros(3), b={"c": np.zeros(4)})
    assert (ckpt.plan_restore(named).values, ckpt.plan_restore(named).nbytes) == (2, 56)

    path = ckpt.write(tmp_path / "ckpt")
    for stored in (named, path):
        assert ckpt.plan_restore(stored, select="b").nbytes == 32
        with pytest.raises(NotFoundError) as caught:
            ckpt.plan_restore(stored, select="nowhere")
        assert caught.value.code == "training.no-such-part"


MEASURE = """
import json, re, sys
import numpy as np
from openckpt.training import Checkpoint

def status(name):
    return int(re.search(name + r":\\s+(\\d+)", open("/proc/self/status").read())[1]) << 10

ckpt = Checkpoint(state=make())
plan = ckpt.plan_restore(sys.argv[1])
open("/proc/self/clear_refs", "w").write("5")  # the high-water mark begins here
before = status("VmRSS")
ckpt.read(sys.argv[1])
measured = status("VmHWM") - before
assert all((values(ckpt.state, n) == n + 1).all() for n in range(12))
print(json.dumps([plan.nbytes, plan.kept_nbytes, plan.replaced_nbytes, plan.peak_nbytes, measured]))
"""

TORCH = """
import torch
def make():
    return torch.nn.ModuleList([torch.nn.Linear(2048, 2048, bias=False) for _ in range(12)])
def values(state, n):
    return state[n].weight.detach().numpy()
"""
TENSORFLOW = """
import os
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
import tensorflow as tf
def make():
    return [{"weight": tf.Variable(tf.fill((2048, 2048), 0.5))} for n in range(12)]
def values(state, n):
    return state[n]["weight"].numpy()
"""
KERAS = """
import os
os.environ["KERAS_BACKEND"] = "jax"
import keras
def make():
    return [{"weight": keras.Variable(keras.ops.full((2048, 2048), 0.5))} for n in range(12)]
def values(state, n):
    return np.asarray(state[n]["weight"].value)
"""
NNX = """
import jax.numpy as jnp
from flax import nnx
def make():
    return [{"weight": nnx.Param(jnp.full((2048, 2048), 0.5))} for n in range(12)]
def values(state, n):
    return np.asarray(state[n]["weight"].get_raw_value())
"""
JAX = """
import jax.numpy as jnp
def make():
    return [{"weight": jnp.full((2048, 2048), 0.5)} for n in range(12)]
def values(state, n):
    return np.asarray(state[n]["weight"])
"""


@pytest.mark.skipif(
    not os.access("/proc/self/clear_refs", os.W_OK), reason="only Linux says how much memory was used at most"
)
@pytest.mark.parametrize(
    "program",
    [
        pytest.param(TORCH, marks=pytest.mark.torch),
        pytest.param(TENSORFLOW, marks=pytest.mark.interop),
        pytest.param(KERAS, marks=[pytest.mark.jax, pytest.mark.interop]),
        pytest.param(NNX, marks=pytest.mark.jax),
        pytest.param(JAX, marks=pytest.mark.jax),
    ],
    ids=["torch", "tensorflow", "keras on jax", "nnx", "jax"],
)
def test_live_frameworks_keep_to_the_plan(program: str, tmp_path: Path) -> None:
    """No copy of the model; of bare JAX arrays one, because they never change."""
    saved = [{"weight": np.full((2048, 2048), n + 1, np.float32)} for n in range(12)]
    path = Checkpoint(state=saved).write(tmp_path / "ckpt", durability="process-crash")
    result = subprocess.run(
        [sys.executable, "-c", program + MEASURE, path],
        capture_output=True, text=True, timeout=120, env={**os.environ, "PYTHONWARNINGS": "ignore"},
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    nbytes, kept, replaced, planned, measured = json.loads(result.stdout)

    assert kept == 0 and nbytes == 12 * 16 * MIB
    assert replaced == (nbytes if program is JAX else 0)
    assert planned <= replaced + 64 * MIB
    assert replaced <= measured <= planned + 8 * MIB  # modules that are imported meanwhile


def test_a_preflight_does_what_a_save_does_and_leaves_nothing(tmp_path: Path) -> None:
    """Not even the directories that it had to make."""
    ckpt = Checkpoint(a=np.ones(1000))

    found = ckpt.preflight(tmp_path / "new" / "run")

    assert not list(tmp_path.iterdir())
    assert found.durability == "power-loss" and found.locks_hold and 8000 <= found.nbytes < 20_000
    assert found.free_bytes is None or found.free_bytes > 0


def test_a_preflight_fails_as_the_save_would(tmp_path: Path) -> None:
    """No room, no permission, somebody at work there."""
    ckpt = Checkpoint(a=np.ones(1000))

    with pytest.raises(OSError, match="bytes to write") as caught:
        ckpt.preflight(tmp_path, saves=1 << 50)
    assert caught.value.errno == errno.ENOSPC

    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(NotADirectoryError):
        ckpt.preflight(tmp_path / "file")

    held = DISK.try_lock(str(tmp_path / "openckpt-preflight.openckpt-lock"))
    assert held is not None
    with pytest.raises(ConflictError) as conflict:
        ckpt.preflight(tmp_path)
    assert conflict.value.code == "commit.locked"
    DISK.close(held)


def test_every_call_of_a_preflight_may_fail(tmp_path: Path) -> None:
    """The error of the system comes through, and nothing stays behind but what could not be removed."""
    ckpt = Checkpoint(a=np.ones(10))
    failed = 0
    for number in itertools.count(1):
        directory = tmp_path / str(number)
        directory.mkdir()
        store = FaultyFS(DISK, fail_at=number)
        try:
            ckpt.preflight(directory / "run", store=store)
        except OSError:
            failed += 1
        if not store.fired:
            break
        names = [name for _, _, files in os.walk(directory) for name in files]
        assert all(name.startswith("openckpt-preflight") for name in names), store.fired
        ckpt.preflight(directory / "run")
        assert not list(directory.rglob("*.openckpt-lock")), store.fired
    assert failed > 5
