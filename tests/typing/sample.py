"""What callers write, and the types that a checker must see; run by tests/test_face.py, never imported."""

from __future__ import annotations

from pathlib import Path
from typing import reveal_type

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

try:
    openckpt.open("nowhere")
except openckpt.CorruptionError as error:
    reveal_type(error.code)  # -> str
    reveal_type(error.where)  # -> tuple[str, str | None, int | None, fallback=openckpt.errors.Where]
    reveal_type(error.fix)  # -> str | None
except FileNotFoundError:
    pass
