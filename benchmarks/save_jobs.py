"""What is timed when checkpoints are written: each function writes the same tensors one way and returns ``[seconds, digest]``.

The tensors are made before, in the form in which their writer takes them: numpy arrays, torch tensors, TensorFlow variables.
Before the clock starts everything that any side has written or deleted is settled by a sync of the whole system, so that no side
pays for another's pages; what was written is removed behind the clock. The digest is that of the files read back by their own
library.
"""

from __future__ import annotations

import functools
import mmap
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tensorflow as tf
from jobs import Timed, arrays_digest, peak_growth, timed

import openckpt

_DIRECT_BYTES = (
    64 << 20
)  # of an O_DIRECT write: of 1, 4, 16 and 64 MiB the fastest on the machine of docs/benchmarks.md


@functools.cache
def _arrays(count: int, nbytes: int) -> dict[str, np.ndarray[Any, Any]]:
    """``count`` float32 tensors of random numbers, ``nbytes`` together, one buffer each."""
    rng = np.random.default_rng(1)
    return {f"model/layer_{n:05d}/kernel": rng.random(nbytes // count // 4, np.float32) for n in range(count)}


@functools.cache
def _torch_tensors(count: int, nbytes: int) -> dict[str, Any]:
    import torch

    return {key: torch.from_numpy(array) for key, array in _arrays(count, nbytes).items()}


@functools.cache
def _tf_checkpoint(count: int, nbytes: int) -> tf.train.Checkpoint:
    return tf.train.Checkpoint(values=[tf.Variable(array) for array in _arrays(count, nbytes).values()])


@functools.cache
def _aligned(count: int, nbytes: int) -> memoryview:
    """All tensors' bytes one after the other in memory that O_DIRECT takes as it is."""
    buffer = memoryview(mmap.mmap(-1, nbytes))
    at = 0
    for array in _arrays(count, nbytes).values():
        buffer[at : at + array.nbytes] = array.data.cast("B")
        at += array.nbytes
    return buffer


def forget_saved() -> None:
    """Drop what is kept between calls."""
    for cached in (_torch_tensors, _tf_checkpoint, _aligned, _arrays):
        cached.cache_clear()


def _sync_files(directory: Path) -> None:
    """What a careful caller of a writer that syncs nothing does: every file that it wrote, then their directory."""
    for path in (*directory.iterdir(), directory):
        number = os.open(path, os.O_RDONLY)
        os.fsync(number)
        os.close(number)


def _written(
    directory: str, write: Callable[[Path], Any], read: Callable[[Path], dict[str, Any]], *, sync: bool, digest: bool
) -> Timed:
    """Time ``write`` into a new directory, followed by the syncs that it left out where they are asked for."""
    place = Path(directory) / f"saved-{os.getpid()}"
    place.mkdir()
    os.sync()

    def job() -> Path:
        write(place)
        if sync:
            _sync_files(place)
        return place

    try:
        return timed(job, lambda place: arrays_digest(read(place)), digest)
    finally:
        shutil.rmtree(place)


def save_ours(directory: str, count: int, nbytes: int, durable: bool, digest: bool = False) -> Timed:
    """openckpt.save; a durable one syncs by itself."""
    arrays = _arrays(count, nbytes)
    durability: Literal["power-loss", "process-crash"] = "power-loss" if durable else "process-crash"

    def write(place: Path) -> None:
        saved = openckpt.save(str(place / "ckpt"), arrays, durability=durability)
        if saved.durability != durability:
            raise RuntimeError(f"{directory} holds no more than {saved.durability}")

    return _written(directory, write, lambda place: openckpt.load(str(place / "ckpt")), sync=False, digest=digest)


def save_tf(directory: str, count: int, nbytes: int, durable: bool, digest: bool = False) -> Timed:
    """tf.train.Checkpoint.write of a list of variables."""
    checkpoint = _tf_checkpoint(count, nbytes)

    def read(place: Path) -> dict[str, Any]:
        reader = tf.train.load_checkpoint(str(place / "ckpt"))
        keys = [f"values/{n}/.ATTRIBUTES/VARIABLE_VALUE" for n in range(count)]
        return {name: reader.get_tensor(key) for name, key in zip(_arrays(count, nbytes), keys, strict=True)}

    return _written(directory, lambda place: checkpoint.write(str(place / "ckpt")), read, sync=durable, digest=digest)


def save_safetensors(directory: str, count: int, nbytes: int, durable: bool, digest: bool = False) -> Timed:
    """safetensors' save_file."""
    from safetensors.numpy import load_file, save_file

    arrays = _arrays(count, nbytes)
    return _written(
        directory,
        lambda place: save_file(arrays, place / "ckpt.safetensors"),
        lambda place: load_file(place / "ckpt.safetensors"),
        sync=durable,
        digest=digest,
    )


def save_torch(directory: str, count: int, nbytes: int, durable: bool, digest: bool = False) -> Timed:
    """torch.save of a dictionary."""
    import torch

    tensors = _torch_tensors(count, nbytes)

    def read(place: Path) -> dict[str, Any]:
        return {key: tensor.numpy() for key, tensor in torch.load(place / "ckpt.pt").items()}

    return _written(directory, lambda place: torch.save(tensors, place / "ckpt.pt"), read, sync=durable, digest=digest)


def save_direct(directory: str, count: int, nbytes: int, digest: bool = False) -> Timed:
    """The bare system calls: space reserved, O_DIRECT writes out of aligned memory, fsync. No checksum, no name to give."""
    buffer = _aligned(count, nbytes)

    def write(place: Path) -> None:
        number = os.open(place / "direct", os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_DIRECT)
        os.posix_fallocate(number, 0, nbytes)
        for at in range(0, nbytes, _DIRECT_BYTES):
            part = buffer[at : at + _DIRECT_BYTES]
            if os.pwrite(number, part, at) != len(part):
                raise RuntimeError("short write")
        os.fsync(number)
        os.close(number)

    def read(place: Path) -> dict[str, Any]:
        whole = np.fromfile(place / "direct", np.float32)
        return dict(zip(_arrays(count, nbytes), np.split(whole, count), strict=True))

    return _written(directory, write, read, sync=False, digest=digest)


def save_growth(directory: str, count: int, nbytes: int, durable: bool) -> int:
    """Peak memory of openckpt.save above what the process, with the caller's arrays, held before, in bytes."""
    _arrays(count, nbytes)
    return peak_growth(lambda: save_ours(directory, count, nbytes, durable))


# ------------------------------------------------------------------------------------------- a dual shard as safetensors


def _sums(arrays: dict[str, Any]) -> dict[str, int]:
    """Read every byte: the tensors as whole numbers of eight bytes, added up."""
    return {key: int(array.reshape(-1).view(np.uint64).sum()) for key, array in arrays.items()}


def _sums_digest(sums: dict[str, int]) -> str:
    return repr(sorted(sums.items()))


def sums_of_views(path: str, digest: bool = False) -> Timed:
    """Views of everything in the ``.safetensors`` link of a dual shard, nothing copied, every byte added up."""

    def job() -> dict[str, int]:
        with openckpt.open(path) as ckpt:
            return _sums({key: ckpt.view(key) for key in ckpt})

    return timed(job, _sums_digest, digest)


def sums_of_load_file(path: str, digest: bool = False) -> Timed:
    """The same sums over what safetensors' load_file returns."""
    from safetensors.numpy import load_file

    return timed(lambda: _sums(load_file(path)), _sums_digest, digest)


def views_of_link(path: str, digest: bool = False) -> Timed:
    """Views only: nothing is read."""
    with openckpt.open(path) as ckpt:
        return timed(lambda: {key: ckpt.view(key) for key in ckpt}, arrays_digest, digest)


def load_link(path: str, digest: bool = False) -> Timed:
    """openckpt.load of the link: new arrays, every checksum verified."""
    return timed(lambda: openckpt.load(path), arrays_digest, digest)
