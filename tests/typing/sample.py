"""What callers write, and the types that a checker must see; run by tests/test_face.py, never imported."""

from __future__ import annotations

from pathlib import Path
from typing import reveal_type

import numpy as np

import openckpt

with openckpt.open(Path("run")) as ckpt:
    reveal_type(ckpt)  # -> openckpt.opening.reader.CheckpointReader
    reveal_type(ckpt.format)  # -> str
    reveal_type(ckpt.step)  # -> int | None
    reveal_type(ckpt.files)  # -> tuple[str, ...]
    reveal_type(ckpt["w"])  # -> numpy.ndarray[tuple[int, ...], numpy.dtype[numpy.generic]]
    reveal_type(ckpt.view("w"))  # -> numpy.ndarray[tuple[int, ...], numpy.dtype[numpy.generic]]
    many = ckpt.read_many(["w"], threads=2)
    reveal_type(many)  # -> dict[str, numpy.ndarray[tuple[int, ...], numpy.dtype[numpy.generic]]]
    reveal_type(list(ckpt))  # -> list[str]
    reveal_type("w" in ckpt)  # -> bool
    reveal_type(ckpt.specs["w"].dtype)  # -> str
    reveal_type(ckpt.specs["w"].shape)  # -> tuple[int, ...] | None
    reveal_type(ckpt.specs["w"].nbytes)  # -> int | None
    reveal_type(ckpt.specs["w"].numpy_dtype)  # -> numpy.dtype[numpy.generic]

report = openckpt.diagnose("run", quick=True)
reveal_type(report.valid)  # -> bool
reveal_type(report.findings[0].code)  # -> str
reveal_type(report.findings[0].where.offset)  # -> int | None
reveal_type(report.findings[0].lost)  # -> openckpt.findings.Lost | None

for found in openckpt.find("zoo", limits=openckpt.Limits(shards=10)):
    reveal_type(found.prefix)  # -> str
    reveal_type(found.complete)  # -> bool

reveal_type(openckpt.latest_checkpoint("run"))  # -> str | None
reveal_type(openckpt.checkpoint_exists("run/ckpt"))  # -> bool
reveal_type(openckpt.list_variables("run"))  # -> list[tuple[str, list[int]]]

tensors = {
    "w": np.ones(3),
    "text": "t",
    "v": openckpt.Variant(b""),
    "s": openckpt.Sliced((2,), {((0, -1),): np.ones(2)}),
}
saved = openckpt.save(Path("run/ckpt-1"), tensors, dtypes={"w": "float64"}, sharding=openckpt.MaxShardSize(1 << 30))
reveal_type(saved)  # -> openckpt.writing.result.SavedPath
reveal_type(saved.step)  # -> int | None
reveal_type(saved.nbytes)  # -> int
with openckpt.open(saved) as opened:
    openckpt.save("run/copy", opened, layout="tensorflow", overwrite=True, durability="process-crash")
reveal_type(openckpt.load(saved))  # -> dict[str, numpy.ndarray[tuple[int, ...], numpy.dtype[numpy.generic]]]
with openckpt.create("run/ckpt-2", {"w": openckpt.TensorSpec("float32", (2,))}, layout="dual") as writer:
    reveal_type(writer)  # -> openckpt.writing.writer.CheckpointWriter
    reveal_type(writer.order)  # -> list[str]
    writer.add("w", np.ones(2, np.float32), dtype=None)
reveal_type(writer.result)  # -> openckpt.writing.result.SavedPath | None
part = openckpt.part_prefix(Path("run/ckpt-3"), 0, 2)
reveal_type(part)  # -> str
reveal_type(openckpt.merge_parts("run/ckpt-3", update_manifest=True))  # -> openckpt.writing.result.SavedPath
openckpt.update_checkpoint_state("run", saved, [saved], all_model_checkpoint_timestamps=[1.0], save_relative_paths=True)
converted = openckpt.convert("run", Path("x.safetensors"), cast=["bfloat16", "float64=float32"], include="*kernel")
reveal_type(converted)  # -> openckpt.conversion.result.Conversion
reveal_type(converted.casts[0].largest_error)  # -> float
openckpt.convert("run", "x", to="hdf5", cast={"float32": "float16"}, max_memory=1 << 26, overwrite=True, verify=False)
openckpt.save("run/groups", tensors, sharding=openckpt.ByGroup(lambda key, spec: (key[0], spec.dtype)))

manager = openckpt.CheckpointManager(
    openckpt.Checkpoint(w=tensors), Path("run"), 3, best="loss", keep_every_n_steps=100
)
reveal_type(manager.restore_or_initialize())  # -> str | None
reveal_type(manager.save(7, metrics={"loss": np.float32(1)}))  # -> openckpt.writing.result.SavedPath | None
reveal_type(manager.save(blocking=False))  # -> openckpt.training.background.SaveHandle | None
reveal_type(manager.steps[0].metrics["loss"])  # -> float
saver = openckpt.Saver({"w": tensors["w"]}, max_to_keep=None)
reveal_type(saver.save("run/model", global_step=3))  # -> openckpt.writing.result.SavedPath
openckpt.init_from_checkpoint("run", {"w": tensors["w"], "scope/": "other/"}, {"other/w": np.ones(2)})
reveal_type(openckpt.remove_checkpoint("run/model-3"))  # -> bool
reveal_type(openckpt.restore("run", like={"w": [1.5]}, select="state"))  # -> dict[str, list[float]]
reveal_type(openckpt.restore("run", like=3, cast=True, partial=True))  # -> int
checkpoint = openckpt.Checkpoint(w=tensors)
reveal_type(openckpt.CheckpointView("run").diff(checkpoint).only_in_checkpoint)  # -> list[int]
reveal_type(checkpoint.plan_restore("run").peak_nbytes)  # -> int
reveal_type(checkpoint.preflight("run", saves=2).free_bytes)  # -> int | None

try:
    openckpt.open("nowhere")
except openckpt.CorruptionError as error:
    reveal_type(error.code)  # -> str
    reveal_type(error.where)  # -> tuple[str, str | None, int | None, fallback=openckpt.errors.Where]
    reveal_type(error.fix)  # -> str | None
except FileNotFoundError:
    pass
