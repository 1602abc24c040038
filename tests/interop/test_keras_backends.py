"""Keras 3 on JAX, torch and NumPy: all state is in the file and comes back, on every backend and in stock TensorFlow; and values
wait for what is built after a restore.

Keras has one backend per process, so that each of the others runs `keras_child.py` in one of its own, all of them at once.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import openckpt
from keras_graphs import ARCHITECTURES, check_waiting, shape_of
from openckpt.formats.objectgraph import parse_object_graph
from openckpt.training import Checkpoint

pytestmark = [
    pytest.mark.interop,
    pytest.mark.jax,
    pytest.mark.torch,
    pytest.mark.slow,
    pytest.mark.timeout(900),  # six processes that import all of this
]
BACKENDS = ("jax", "torch", "numpy")
CHILD = Path(__file__).resolve().parents[1] / "keras_child.py"


@pytest.fixture(scope="module")
def models(keras_module: Callable[[str], Any]) -> Any:
    return keras_module("keras_models")


def _run(commands: dict[str, list[str]]) -> list[tuple[subprocess.Popen[str], str]]:
    """Run processes beside each other; return each with its output."""
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    running = [
        subprocess.Popen(
            [sys.executable, "-W", "ignore", str(CHILD), *arguments], stdout=subprocess.PIPE, env=environment, text=True
        )
        for arguments in commands.values()
    ]
    return [(process, process.communicate(timeout=280)[0]) for process in running]


@pytest.fixture(scope="module")
def written(models: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, dict[str, Any]]]:
    """Every architecture as every backend wrote it, and what the processes of the others say."""
    directory = tmp_path_factory.mktemp("backends")
    for name in ARCHITECTURES:
        model = models.make(name)
        models.fill(model)
        Checkpoint(model=model, optimizer=model.optimizer).write(directory / "tensorflow" / name)
    killed = _run({name: [name, str(directory), "train"] for name in ("tensorflow", "jax", "torch")})
    assert [process.returncode for process, _ in killed] == [-signal.SIGKILL] * 3
    ended = _run({name: [name, str(directory)] for name in BACKENDS})
    assert [process.returncode for process, _ in ended] == [0, 0, 0]
    outputs = [output for _, output in ended]
    said: dict[str, dict[str, Any]] = {}
    for name, output in zip(BACKENDS, outputs, strict=True):
        lines = [json.loads(line) for line in output.splitlines()]
        said[name] = {line["architecture"]["name"]: line["architecture"] for line in lines if "architecture" in line}
        said[name] |= {
            key: line[key] for line in lines for key in ("resumed", "every batch", "odd", "learned") if key in line
        }
        said[f"{name} waiting"] = {line["waiting"]["case"]: line["waiting"] for line in lines if "waiting" in line}
    return directory, said


@pytest.mark.parametrize("backend", BACKENDS)
def test_everything_is_in_the_file_and_comes_back(
    written: tuple[Path, dict[str, dict[str, Any]]], backend: str, record_property: Any
) -> None:
    """Weights, optimizer, metrics and seeds of every architecture, from the backend's own file and from TensorFlow's."""
    answers = {name: answer for name, answer in written[1][backend].items() if name in ARCHITECTURES}
    assert list(answers) == ARCHITECTURES
    for name, answer in answers.items():
        everything = {"bound": answer["variables"], "same": True}
        assert answer == {
            "name": name,
            "variables": answer["variables"],
            "own": everything,
            "tensorflow's": everything,
        }
    total = sum(answer["variables"] for answer in answers.values())
    record_property("proof", f"Keras on {backend}: {total} variables of {len(answers)} models saved and restored")


@pytest.mark.parametrize("backend", BACKENDS)
def test_files_are_the_tensorflow_backends(written: tuple[Path, dict[str, dict[str, Any]]], backend: str) -> None:
    """Both graphs have the same edges and the same keys, every value the same dtype."""
    directory, _ = written
    for name in ARCHITECTURES:
        with (
            openckpt.open(directory / backend / name) as ours,
            openckpt.open(directory / "tensorflow" / name) as theirs,
        ):
            assert shape_of(ours.graph) == shape_of(theirs.graph), name
            both = [parse_object_graph(one["_OPENCKPT_OBJECT_GRAPH"].item(), "") for one in (ours, theirs)]
            assert shape_of(both[0]) == shape_of(both[1]), name
            assert set(ours.specs) == set(theirs.specs), name
            for key, spec in ours.specs.items():
                if spec.dtype != "string":
                    assert spec == theirs.specs[key], (name, key)


@pytest.mark.parametrize("backend", BACKENDS)
def test_stock_tensorflow_restores_them(
    tf: Any, models: Any, written: tuple[Path, dict[str, dict[str, Any]]], backend: str
) -> None:
    """`tf.train.Checkpoint` consumes the file of every backend, and what it tracks has the values."""
    directory, _ = written
    for name in ARCHITECTURES[BACKENDS.index(backend) :: 4]:
        model = models.make(name)
        models.fill(model, 1)
        tf.train.Checkpoint(model=model, optimizer=model.optimizer).read(
            str(directory / backend / name)
        ).assert_consumed()
        actual = {
            id(variable): value for variable, value in zip(models.state_of(model), models.values_of(model), strict=True)
        }
        models.fill(model)
        expected = dict(zip(map(id, models.state_of(model)), models.values_of(model), strict=True))
        equal = [np.array_equal(expected[number], actual[number]) for number in expected]
        assert sum(equal) >= len(model.optimizer.variables), name


@pytest.mark.parametrize("backend", BACKENDS)
def test_what_is_built_later_gets_its_values(
    written: tuple[Path, dict[str, dict[str, Any]]], backend: str, record_property: Any
) -> None:
    """Models of four kinds that had no variables at the restore, then called, built, trained or asked for predictions."""
    cases = written[1][f"{backend} waiting"]
    assert len(cases) == (12 if backend == "numpy" else 16)
    for case in cases.values():
        check_waiting(case)
    record_property("proof", f"Keras on {backend}: {len(cases)} restores before anything was built")


@pytest.mark.parametrize("backend", ["tensorflow", "jax", "torch"])
def test_a_killed_training_ends_as_one_that_never_stopped(
    models: Any, written: tuple[Path, dict[str, dict[str, Any]]], backend: str
) -> None:
    """Killed in its third epoch and begun again by the same line in another process: equal weights, slots and losses, bit for bit."""
    if backend == "tensorflow":
        from keras_resume import second_run

        said = second_run(written[0] / "tensorflow-training")
    else:
        said = written[1][backend]["resumed"]
    assert said == {"epochs": [2, 3], "losses": True, "values": True}


@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_a_save_after_every_batch_has_the_values_of_its_batch(
    written: tuple[Path, dict[str, dict[str, Any]]], backend: str
) -> None:
    """Also on JAX, where the variables have no values while ``fit`` runs."""
    assert written[1][backend]["every batch"] == {"saves": 8, "same": True, "place": [1, 4]}


def test_buffers_of_torch_modules_in_layers_come_back(written: tuple[Path, dict[str, dict[str, Any]]]) -> None:
    """Keras tracks only their parameters."""
    assert written[1]["torch"]["odd"] is True


@pytest.mark.parametrize("backend", ["tensorflow", *BACKENDS])
def test_what_layers_have_learned_comes_back(
    written: tuple[Path, dict[str, dict[str, Any]]], backend: str, tmp_path: Path
) -> None:
    """The boundaries of bins, and a mean that a layer has made something of."""
    if backend == "tensorflow":
        from keras_learned import learned

        said = learned(tmp_path)
    else:
        said = written[1][backend]["learned"]
    assert said == {"normalization": True, "boundaries": True}


def test_a_variable_whose_value_is_inside_fit_is_refused(written: tuple[Path, dict[str, dict[str, Any]]]) -> None:
    """On JAX, where nobody but the model can fetch it."""
    assert written[1]["jax"]["odd"] is True
