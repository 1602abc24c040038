"""What is timed when checkpoints are converted: `openckpt.convert`, and the bare system calls that move the same bytes.

The source lies in the page cache, as after a download. Before the clock starts everything that any side has written or deleted is
settled by a sync of the whole system; what was written is removed behind the clock.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from jobs import Timed, arrays_digest, peak_growth, timed

import openckpt

_CHUNK = 16 << 20


def _in_new_directory(
    directory: str, job: Callable[[Path], Any], digest_of: Callable[[Any], str], digest: bool
) -> Timed:
    place = Path(directory) / f"converted-{os.getpid()}"
    place.mkdir()
    os.sync()
    try:
        return timed(lambda: job(place), digest_of, digest)
    finally:
        shutil.rmtree(place)


def convert_ours(
    directory: str,
    prefix: str,
    name: str,
    durable: bool,
    verify: bool,
    max_memory: int = 256 << 20,
    digest: bool = False,
) -> Timed:
    """One conversion, to the format that the name says."""
    durability: Literal["power-loss", "process-crash"] = "power-loss" if durable else "process-crash"

    def job(place: Path) -> str:
        done = openckpt.convert(prefix, place / name, durability=durability, verify=verify, max_memory=max_memory)
        if done.durability != durability:
            raise RuntimeError(f"{directory} holds no more than {done.durability}")
        return done.target

    def digest_of(target: str) -> str:
        with openckpt.open(target) as ckpt:
            return arrays_digest(ckpt.read_many())

    return _in_new_directory(directory, job, digest_of, digest)


def convert_growth(directory: str, prefix: str, name: str, max_memory: int) -> int:
    """Peak memory of a conversion with its proof above what the process held before, everything imported, in bytes."""
    arguments: dict[str, Any] = {"directory": directory, "name": name, "durable": False, "verify": True}
    small = str(Path(directory) / "tiny")
    if not Path(f"{small}.index").exists():
        import numpy as np

        openckpt.save(small, {"x": np.zeros(4, np.float32)})
    convert_ours(prefix=small, max_memory=max_memory, **arguments)
    return peak_growth(lambda: convert_ours(prefix=prefix, max_memory=max_memory, **arguments))


def _data_file(prefix: str) -> tuple[str, int]:
    path = f"{prefix}.data-00000-of-00001"
    return path, Path(path).stat().st_size


def bare_read(directory: str, prefix: str, digest: bool = False) -> Timed:
    """The bytes of the source by preadv into one buffer of 16 MiB, which stays in the caches."""
    path, size = _data_file(prefix)
    buffer = memoryview(bytearray(_CHUNK))
    number = os.open(path, os.O_RDONLY)

    def job() -> None:
        for at in range(0, size, _CHUNK):
            os.preadv(number, [buffer[: min(_CHUNK, size - at)]], at)

    try:
        return timed(job, str, digest)
    finally:
        os.close(number)


def bare_write(directory: str, prefix: str, durable: bool, digest: bool = False) -> Timed:
    """As many bytes by pwritev from one buffer into a new file, synced with its directory where ours is."""
    _, size = _data_file(prefix)
    buffer = memoryview(bytearray(os.urandom(_CHUNK)))

    def job(place: Path) -> None:
        number = os.open(place / "data", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        for at in range(0, size, _CHUNK):
            os.pwritev(number, [buffer[: min(_CHUNK, size - at)]], at)
        if durable:
            os.fdatasync(number)
            home = os.open(place, os.O_RDONLY)
            os.fsync(home)
            os.close(home)
        os.close(number)

    return _in_new_directory(directory, job, str, digest)
