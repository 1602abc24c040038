"""Resumed is as if it had never stopped: 20 steps, against 10, a save, a new process and 10 more; every bit of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

TORCH = """
import torch

class Batches:
    '''Shuffled anew in each pass; its attributes are its state.'''
    def __init__(self, count, size, seed):
        self.generator = torch.Generator().manual_seed(seed)
        self.order, self.position, self._count, self._size = torch.arange(count), count, count, size

    def next(self):
        if self.position + self._size > self._count:
            self.order, self.position = torch.randperm(self._count, generator=self.generator), 0
        self.position += self._size
        return self.order[self.position - self._size : self.position]

def make(seed):
    torch.manual_seed(seed)
    model = torch.nn.Sequential(
        torch.nn.Linear(8, 32), torch.nn.BatchNorm1d(32), torch.nn.ReLU(), torch.nn.Dropout(0.3), torch.nn.Linear(32, 1))
    optimizer = torch.optim.Adam([
        {"params": model[0].parameters(), "lr": 0.02}, {"params": [*model[1].parameters(), *model[4].parameters()]}])
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 20)
    return {"model": model, "optimizer": optimizer, "scheduler": scheduler, "batches": Batches(40, 16, seed),
            "rng": torch.default_generator}

x = torch.linspace(-1, 1, 320).reshape(40, 8)
y = x.sum(1, keepdim=True).sin()

def step(program):
    rows = program["batches"].next()
    program["optimizer"].zero_grad()
    loss = (program["model"](x[rows]) - y[rows]).square().mean()
    loss.backward()
    program["optimizer"].step()
    program["scheduler"].step()
    return loss.item()

def weights(program):
    return {name: value.numpy().tobytes().hex() for name, value in program["model"].state_dict().items()}
"""

FLAX = """
import jax, jax.numpy as jnp, numpy as np, optax
from flax import nnx

class Network(nnx.Module):
    def __init__(self, rngs):
        self.first, self.last = nnx.Linear(8, 32, rngs=rngs), nnx.Linear(32, 1, rngs=rngs)
        self.norm, self.drop = nnx.BatchNorm(32, rngs=rngs), nnx.Dropout(0.3, rngs=rngs)

    def __call__(self, x):
        return self.last(self.drop(nnx.relu(self.norm(self.first(x)))))

class Batches:
    def __init__(self, count, size, seed):
        self.generator = np.random.default_rng(seed)
        self.order, self.position, self._count, self._size = np.arange(count), count, count, size

    def next(self):
        if self.position + self._size > self._count:
            self.order, self.position = self.generator.permutation(self._count), 0
        self.position += self._size
        return self.order[self.position - self._size : self.position]

def make(seed):
    model = Network(nnx.Rngs(seed))
    tx = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(optax.cosine_decay_schedule(0.02, 20)))
    return {"model": model, "optimizer": nnx.Optimizer(model, tx, wrt=nnx.Param), "batches": Batches(40, 16, seed),
            "ema": {"losses": jnp.zeros(2)}}

x = np.linspace(-1, 1, 320, dtype=np.float32).reshape(40, 8)
y = np.sin(x.sum(1, keepdims=True))

@nnx.jit
def update(model, optimizer, x, y):
    loss, grads = nnx.value_and_grad(lambda model: ((model(x) - y) ** 2).mean())(model)
    optimizer.update(model, grads)
    return loss

def step(program):
    rows = program["batches"].next()
    loss = update(program["model"], program["optimizer"], x[rows], y[rows])
    program["ema"]["losses"] = program["ema"]["losses"] * 0.9 + loss  # a new array each time
    return float(loss)

def weights(program):
    values = jax.tree.leaves(nnx.pure(nnx.state((program["model"], program["optimizer"]), nnx.Not(nnx.RngKey))))
    values.append(program["ema"]["losses"])
    return {str(n): np.asarray(value).tobytes().hex() for n, value in enumerate(values)}
"""

RUN = """
import json, sys
from openckpt.training import Checkpoint

path, is_new = sys.argv[1], sys.argv[2] == "new"
if not is_new:
    never_stopped = make(0)
    result = {"losses": [step(never_stopped) for _ in range(20)], "weights": weights(never_stopped)}
    program = make(0)
    assert [step(program) for _ in range(10)] == result["losses"][:10]
    Checkpoint(**program).save(path)
else:
    program = make(1)
    step(program)
    Checkpoint(**program).restore(path + "-1").assert_consumed()
    result = {"losses": [step(program) for _ in range(10)], "weights": weights(program)}
print(json.dumps(result))
"""


def run(program: str, path: Path, which: str) -> Any:
    environment = {**os.environ, "PYTHONWARNINGS": "ignore", "JAX_PLATFORMS": "cpu"}
    result = subprocess.run(
        [sys.executable, "-c", program + RUN, str(path), which],
        capture_output=True, text=True, timeout=240, env=environment,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout.splitlines()[-1])


@pytest.mark.parametrize(
    "program", [pytest.param(TORCH, marks=pytest.mark.torch), pytest.param(FLAX, marks=pytest.mark.jax)],
    ids=["torch", "flax"],
)  # fmt: skip
def test_ten_steps_after_a_restore_are_the_last_ten_of_twenty(program: str, tmp_path: Path) -> None:
    """Losses and weights bit for bit: optimizer, schedule, dropout and the order of the data go on."""
    straight = run(program, tmp_path / "ckpt", "first")
    resumed = run(program, tmp_path / "ckpt", "new")

    assert resumed["losses"] == straight["losses"][10:]
    assert resumed["weights"] == straight["weights"]
    assert len(set(straight["losses"])) == 20
