"""The goals of conversion: against the slower of bare reading and bare writing of the same bytes, and against the memory budget."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import datasets
from harness import Result, Worker, figure, memory_row, race, versus

if TYPE_CHECKING:
    from cases import Setting

MIB = 1 << 20
NAMES = {"dual": "a dual checkpoint", "x.safetensors": "safetensors"}


def convert(setting: Setting) -> Result:
    """1 GiB in 64 tensors from TensorFlow's bundle to a dual checkpoint and to safetensors; peak memory."""
    nbytes = setting.size(1024 * MIB, 64 * MIB)
    prefix = datasets.tensors(setting.directory, "large", 64, nbytes)
    place: dict[str, Any] = {"directory": str(setting.directory), "prefix": prefix}
    result = Result()
    for durable in (False, True):
        sides = {
            f"{name}, {'read back' if verify else 'not read back'}": (
                "convert_ours",
                {**place, "name": name, "durable": durable, "verify": verify},
            )
            for name in NAMES
            for verify in (False, True)
        }
        ours = list(sides)
        sides |= {"bare preadv": ("bare_read", place), "bare pwritev": ("bare_write", {**place, "durable": durable})}
        # A disk shared with others is the noisiest thing here.
        samples = race(sides, rounds=2 * setting.rounds + 1 if durable else setting.rounds, compare=ours)
        reading, writing = samples["bare preadv"], samples["bare pwritev"]
        slower = max(reading, writing, key=lambda sample: sample.median)
        area = f"Convert {nbytes // MIB} MiB in 64 tensors, {'durable' if durable else 'not synced'}"
        for label in ours:
            name, _, how = label.partition(", ")
            title = f"to {NAMES[name]}, {how}, against the slower of bare read and write"
            result.rows.append(versus(area, title, samples[label], slower, 0.7, nbytes=nbytes))
        result.notes.append(f"{area}: bare preadv {figure(reading, nbytes)}, bare pwritev {figure(writing, nbytes)}")
    tensor = nbytes // 64
    for name in (*NAMES, "x.h5", "x.npz"):
        for budget in (16 * MIB, 256 * MIB):
            worker = Worker()
            try:
                grown = worker.call("convert_growth", **place, name=name, max_memory=budget)
            finally:
                worker.close()
            title = f"to {name}, --max-memory {budget // MIB}MiB: that and one tensor of {tensor // MIB} MiB"
            result.rows.append(memory_row("Convert, memory", title, grown, budget + tensor))
    return result
