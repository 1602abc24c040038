"""What is timed of delta saves: a state of which one hundredth has changed since the save before, against a full save of all of it.

Both sides hold the same values, change the same tensors between their saves, and write durably; the digest is that of the file.
"""

from __future__ import annotations

import functools
import gc
import os
import shutil
from pathlib import Path

import numpy as np
from jobs import Timed, arrays_digest, timed

import openckpt

_TENSORS = 100
"""of equal size; the first one changes from save to save"""


class _Run:
    """A program that saves again and again; it keeps its last save, which the next one may link."""

    def __init__(self, place: Path, how: str, nbytes: int) -> None:
        rng = np.random.default_rng(1)
        arrays = [rng.random(nbytes // _TENSORS // 4, np.float32) for _ in range(_TENSORS)]
        self._changing = arrays[0]
        self._fixed = {f"layer_{n:05d}": array for n, array in enumerate(arrays[1:], 1)}
        self._checkpoint = openckpt.Checkpoint(state={"head": self._changing, "body": self._fixed})
        self._place, self._how, self._step = place, how, 0
        place.mkdir()
        self._write()

    def _write(self) -> openckpt.SavedPath:
        frozen = ["state/body"] if self._how == "frozen" else []
        path = str(self._place / f"ckpt-{self._step}")
        return self._checkpoint.write(path, delta=self._how != "full", frozen=frozen)

    def next(self, digest: bool) -> Timed:
        """Change one hundredth, time the save, prove what was linked, and remove the save before."""
        self._changing += 1
        before, self._step = self._step, self._step + 1
        os.sync()
        answer = timed(self._write, self._digest, digest)
        for old in self._place.glob(f"ckpt-{before}.*"):
            old.unlink()
        return answer

    def _digest(self, saved: openckpt.SavedPath) -> str:
        shared = 0 if self._how == "full" else sum(array.nbytes for array in self._fixed.values())
        if not shared <= saved.linked_nbytes <= 1.02 * shared:  # a file as a whole, what has changed since with it
            raise AssertionError(f"{self._how}: {saved.linked_nbytes} bytes linked ({saved.why_full})")
        arrays = openckpt.load(str(saved))
        return arrays_digest({key: array for key, array in arrays.items() if not key.startswith("_")})


@functools.cache
def _run(directory: str, how: str, nbytes: int) -> _Run:
    place = Path(directory) / f"delta-{how}-{os.getpid()}"
    _PLACES.append(place)
    return _Run(place, how, nbytes)


_PLACES: list[Path] = []


def forget_deltas() -> None:
    """Drop what is kept between calls, and remove what was written."""
    while _PLACES:
        shutil.rmtree(_PLACES.pop())
    _run.cache_clear()
    gc.collect()


def save_changed(directory: str, how: str, nbytes: int, digest: bool = False) -> Timed:
    """A durable save after one hundredth has changed: ``full``, or a delta with the rest ``frozen`` or known by ``hash``."""
    return _run(directory, how, nbytes).next(digest)
