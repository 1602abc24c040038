"""The goals of the project, one function per area; each returns rows (ours, peer, ratio, goal) and notes.

The goals stand in docs/benchmarks.md. Every function gets the place for its data and the number of rounds; ``quick`` shrinks the
data so that the whole run takes a minute and proves that the benchmarks work, not that goals are met.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import convert_cases
import datasets
import save_cases
import train_cases
from harness import Result, Row, Sample, Worker, below, figure, memory_row, race, race_processes, versus

MIB = 1 << 20


@dataclass(frozen=True)
class Setting:
    """Where data goes, how often to measure, and whether to do so with small data."""

    directory: Path
    rounds: int
    quick: bool

    def size(self, full: int, quick: int) -> int:
        """Return one of two sizes."""
        return quick if self.quick else full


def startup(setting: Setting) -> Result:
    """A whole process: from its start to a printed list of 200 tensors."""
    prefix = datasets.tensors(setting.directory, "start", 200, 10 * MIB)
    python = sys.executable
    cli = str(Path(python).with_name("openckpt"))
    tensorflow = f"import tensorflow as tf\nfor name, shape in tf.train.list_variables({prefix!r}): print(name, shape)"
    narrow = (
        "from tensorflow.python.training import py_checkpoint_reader as r\n"
        f"for name, shape in sorted(r.NewCheckpointReader({prefix!r}).get_variable_to_shape_map().items()): print(name, shape)"
    )
    safetensors = (
        "from safetensors import safe_open\n"
        f"with safe_open({prefix + '.safetensors'!r}, 'np') as file:\n"
        "    for name in file.keys(): print(name, file.get_slice(name).get_shape())"
    )
    commands = {
        "openckpt ls": [cli, "ls", prefix],
        "tf.train.list_variables": [python, "-c", tensorflow],
        "TensorFlow, its reader module only": [python, "-c", narrow],
        "safetensors": [python, "-c", safetensors],
        "python -c pass": [python, "-c", "for n in range(200): print(f'model/layer_{n:05d}/kernel')"],
    }

    def names(_: str, output: bytes) -> list[str]:
        words = [line.split()[0] for line in output.decode().splitlines() if line.strip()]
        return sorted(word for word in words if word.startswith("model/layer_"))

    runs = race_processes(commands, rounds=setting.rounds, directory=setting.directory, parse=names)
    ours, tf, peer = (runs[label] for label in ("openckpt ls", "tf.train.list_variables", "safetensors"))
    area = "Start-up"
    rows = [
        versus(area, "openckpt ls against TensorFlow's process", ours.wall, tf.wall, 30),
        versus(area, "openckpt ls against safetensors' process", ours.wall, peer.wall, 1, compare="above"),
        memory_row(area, "peak memory of openckpt ls", ours.peak_bytes, 30 * MIB),
    ]
    notes = [
        f"{label}: {figure(run.wall)}, {run.cpu * 1e3:.0f} ms of CPU, peak {run.peak_bytes / MIB:.0f} MiB"
        for label, run in runs.items()
    ]
    notes.append(f"by CPU time: {tf.cpu / ours.cpu:.1f} x TensorFlow, {peer.cpu / ours.cpu:.2f} x safetensors")
    return Result(rows, notes)


def listing(setting: Setting) -> Result:
    """Opening and listing inside a running process, by number of tensors."""
    result = Result()
    area = "Open and list"
    goals = {20_000: (1.5, 1.0), 100_000: (4.0, 3.0), 1_000_000: (6.0, 4.0)}
    for full, (lazy, whole) in goals.items():
        count = setting.size(full, full // 20)
        prefix, names = datasets.scalars(setting.directory, count)
        samples = race(
            {
                "ours, lazy": ("list_lazy_ours", {"prefix": prefix, "names_file": names}),
                "list_variables, 1,000 specs": ("list_lazy_tf", {"prefix": prefix, "names_file": names}),
            },
            rounds=setting.rounds,
        )
        ours, peer = samples.values()
        result.rows.append(versus(area, f"{count:,} tensors, mapping ready and 1,000 random specs", ours, peer, lazy))
        samples = race(
            {
                "ours, full": ("list_full_ours", {"prefix": prefix}),
                "list_variables": ("list_full_tf", {"prefix": prefix}),
            },
            rounds=setting.rounds,
        )
        ours, peer = samples.values()
        result.rows.append(versus(area, f"{count:,} tensors, every key, dtype and shape", ours, peer, whole))
        samples = race(
            {
                "ours, full": ("list_maps_ours", {"prefix": prefix}),
                "TF reader, shape and dtype maps": ("list_maps_tf", {"prefix": prefix}),
            },
            rounds=setting.rounds,
        )
        ours, peer = samples.values()
        result.notes.append(
            f"{count:,} tensors against TensorFlow's reader with shape and dtype maps (list_variables gives no dtypes): "
            f"{peer.median / ours.median:.2f} x; ours {figure(ours)}, TensorFlow {figure(peer)}"
        )
    result.rows += _one_tensor(setting, prefix, names, count, result.notes)
    return result


def _one_tensor(setting: Setting, prefix: str, names: str, count: int, notes: list[str]) -> list[Row]:
    rows = []
    for cold in (False, True):
        arguments = {"prefix": prefix, "names_file": names, "cold": cold}
        samples = race(
            {"ours": ("one_tensor_ours", arguments), "RestoreV2": ("one_tensor_tf", arguments)},
            rounds=max(15, setting.rounds),
        )
        state = "page cache dropped" if cold else "page cache warm"
        rows.append(
            below("Open and list", f"one tensor out of {count:,}, newly opened, {state}", samples["ours"], 2e-3)
        )
        notes.append(f"one tensor out of {count:,}, {state}: RestoreV2 {figure(samples['RestoreV2'])}")
    return rows


def large(setting: Setting) -> Result:
    """1 GiB in 64 tensors, checksums checked."""
    nbytes = setting.size(1024 * MIB, 64 * MIB)
    prefix = datasets.tensors(setting.directory, "large", 64, nbytes)
    area = f"{nbytes // MIB} MiB in 64 tensors"
    rounds = max(setting.rounds, 5)
    samples = race(
        {
            "ours, 2 threads": ("restore_existing_ours", {"prefix": prefix, "threads": 2}),
            "ours, 1 thread": ("restore_existing_ours", {"prefix": prefix, "threads": 1}),
            "preadv, 2 threads": ("restore_existing_preadv", {"prefix": prefix, "threads": 2}),
            "preadv, 1 thread": ("restore_existing_preadv", {"prefix": prefix, "threads": 1}),
            "RestoreV2": ("restore_tf", {"prefix": prefix}),
        },
        rounds=rounds,
    )
    two, one, raw_two, raw_one, restore = samples.values()
    rows = [
        versus(area, "into existing arrays, 2 threads", two, restore, 3, nbytes=nbytes),
        versus(area, "into existing arrays, 2 threads, against bare preadv", two, raw_two, 0.8, nbytes=nbytes),
        versus(area, "into existing arrays, 1 thread, against bare preadv", one, raw_one, 0.6, nbytes=nbytes),
    ]
    samples = race(
        {
            "ours, new arrays": ("restore_new_ours", {"prefix": prefix, "threads": 2}),
            "RestoreV2": ("restore_tf", {"prefix": prefix}),
        },
        rounds=rounds,
    )
    ours, restore = samples.values()
    rows.append(versus(area, "into new arrays, 2 threads", ours, restore, 2, nbytes=nbytes))
    samples = race(
        {
            "ours, cold": ("restore_new_ours", {"prefix": prefix, "threads": 2, "cold": True}),
            "RestoreV2": ("restore_tf", {"prefix": prefix, "cold": True}),
        },
        rounds=2 * rounds + 1,  # a disk shared with others is the noisiest thing here
    )
    ours, restore = samples.values()
    rows.append(versus(area, "into new arrays, page cache dropped before each call", ours, restore, 1.3, nbytes=nbytes))
    samples = race(
        {"ours, views": ("views_ours", {"prefix": prefix}), "RestoreV2": ("restore_tf", {"prefix": prefix})},
        rounds=rounds,
    )
    rows.append(below(area, "zero-copy views of all", samples["ours, views"], 1e-3))
    return Result(rows)


def small(setting: Setting) -> Result:
    """256 MiB in 20,000 tensors, checksums checked."""
    nbytes, count = setting.size(256 * MIB, 26 * MIB), setting.size(20_000, 2_000)
    prefix = datasets.tensors(setting.directory, "small", count, nbytes)
    area = f"{nbytes // MIB} MiB in {count:,} tensors"
    samples = race(
        {
            "ours": ("restore_new_ours", {"prefix": prefix}),
            "RestoreV2": ("restore_tf", {"prefix": prefix}),
            "safetensors load_file": ("restore_safetensors", {"path": f"{prefix}.safetensors"}),
            "preadv, 1 thread, existing": ("restore_existing_preadv", {"prefix": prefix, "threads": 1}),
        },
        rounds=max(setting.rounds, 5),
    )
    ours, restore, safetensors, raw = samples.values()
    rows = [
        versus(area, "into new arrays (an arena), CRC checked", ours, restore, 1.5, nbytes=nbytes),
        versus(
            area,
            "into new arrays, CRC checked, against safetensors unchecked",
            ours,
            safetensors,
            1,
            nbytes=nbytes,
            compare="above",
        ),
    ]
    return Result(rows, [f"bare preadv of each tensor: {figure(raw, nbytes)}"])


def verify(setting: Setting) -> Result:
    """Proving 1 GiB sound: every CRC, no array made."""
    nbytes = setting.size(1024 * MIB, 64 * MIB)
    prefix = datasets.tensors(setting.directory, "large", 64, nbytes)
    area = f"Verify {nbytes // MIB} MiB"
    samples = race(
        {
            "ours": ("verify_ours", {"prefix": prefix}),
            "fastcrc on memory, 2 threads": ("verify_bare_crc", {"prefix": prefix, "threads": 2}),
            "preadv and fastcrc, 2 threads": ("verify_pread_crc", {"prefix": prefix, "threads": 2}),
        },
        rounds=max(setting.rounds, 5),
    )
    ours, bare, through = samples.values()
    rows = [versus(area, "diagnose, against the CRC library alone on two threads", ours, bare, 0.8, nbytes=nbytes)]
    notes = [
        f"against bare preadv of 1 MiB and the CRC library, two threads: {through.median / ours.median:.2f} x, {figure(through, nbytes)}"
    ]
    return Result(rows, notes)


def memory(setting: Setting) -> Result:
    """Growth of a process over its state after imports."""
    rows = []
    nbytes = setting.size(1024 * MIB, 64 * MIB)
    big = datasets.tensors(setting.directory, "large", 64, nbytes)
    count = setting.size(1_000_000, 50_000)
    scalars, names = datasets.scalars(setting.directory, count)
    jobs: list[tuple[str, str, dict[str, Any], int, str]] = [
        (
            f"reading {nbytes // MIB} MiB into new arrays",
            "restore_new_ours",
            {"prefix": big, "threads": 2},
            nbytes,
            big,
        ),
        (f"proving {nbytes // MIB} MiB", "verify_ours", {"prefix": big}, 0, big),
        (f"listing {count:,} tensors", "list_full_ours", {"prefix": scalars}, 0, scalars),
        (f"one tensor out of {count:,}", "one_tensor_ours", {"prefix": scalars, "names_file": names}, 0, scalars),
    ]
    for name, job, arguments, arrays, prefix in jobs:
        worker = Worker()
        try:
            if "names_file" in arguments:
                worker.call("_names_count", names_file=names)
            grown = worker.call("growth", job=job, **arguments)
        finally:
            worker.close()
        bound = arrays + 64 * MIB + 4 * os.stat(f"{prefix}.index").st_size
        rows.append(memory_row("Memory", name, grown, bound))
    return Result(rows)


def scan(setting: Setting) -> Result:
    """find over a tree of small checkpoints."""
    count = setting.size(10_000, 500)
    root = datasets.tree(setting.directory, count)
    samples = race(
        {"ours": ("find_ours", {"root": root}), "list_variables of each": ("list_each_tf", {"root": root})},
        rounds=setting.rounds,
    )
    ours = samples["ours"]
    rate = Sample(ours.name, ours.seconds, ours.first)
    row = below("find", f"{count:,} checkpoints, 10,000 a second", rate, count / 10_000)
    return Result(
        [row],
        [
            f"{count / ours.median:,.0f} checkpoints a second",
            f"TensorFlow's list_variables of each: {figure(samples['list_variables of each'])}",
        ],
    )


CASES: dict[str, Callable[[Setting], Result]] = {
    "startup": startup,
    "listing": listing,
    "large": large,
    "small": small,
    "verify": verify,
    "memory": memory,
    "scan": scan,
    "save": save_cases.save,
    "convert": convert_cases.convert,
    "train": train_cases.train,
}
