"""What is timed: each function does one job one way and returns ``[seconds, digest]``.

Only the job itself lies between the two clock readings; what it needs (arrays to read into, keys to look up) is made before, and
kept between calls. The digest, computed after the clock has stopped and only when asked for, is what the sides are compared by.
"""

from __future__ import annotations

import functools
import gc
import hashlib
import json
import os
import random
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

import openckpt

Timed = list[Any]
CHUNK = 16 << 20


def timed(job: Callable[[], Any], digest_of: Callable[[Any], str], digest: bool) -> Timed:
    """Run a job between two readings of the clock; its result is digested behind them, where that is asked for."""
    gc.collect()
    start = time.perf_counter()
    value = job()
    seconds = time.perf_counter() - start
    return [seconds, digest_of(value) if digest else None]


def _rows_digest(rows: Any) -> str:
    return hashlib.sha256(repr(sorted(rows)).encode()).hexdigest()


# ------------------------------------------------------------------------------------------------------ open and list


@functools.cache
def _names(names_file: str) -> list[str]:
    return json.loads(Path(names_file).read_text("utf-8"))


@functools.cache
def _sample(names_file: str, count: int) -> list[str]:
    return random.Random(1).sample(_names(names_file), count)


def list_full_ours(prefix: str, digest: bool = False) -> Timed:
    """Every key with dtype and shape, as Python values."""

    def job() -> dict[str, Any]:
        with openckpt.open(prefix) as ckpt:
            return dict(ckpt.specs.items())

    return timed(job, lambda specs: _rows_digest((key, list(spec.shape)) for key, spec in specs.items()), digest)


def list_full_tf(prefix: str, digest: bool = False) -> Timed:
    """TensorFlow's list: names and shapes."""
    return timed(
        lambda: tf.train.list_variables(prefix), lambda rows: _rows_digest((k, list(s)) for k, s in rows), digest
    )


def list_maps_ours(prefix: str, digest: bool = False) -> Timed:
    """Every key with dtype and shape; compared by all three."""

    def job() -> dict[str, Any]:
        with openckpt.open(prefix) as ckpt:
            return dict(ckpt.specs.items())

    return timed(
        job, lambda specs: _rows_digest((key, spec.dtype, list(spec.shape)) for key, spec in specs.items()), digest
    )


def list_maps_tf(prefix: str, digest: bool = False) -> Timed:
    """TensorFlow's reader with both maps: names, shapes and dtypes."""

    def job() -> tuple[dict[str, Any], dict[str, Any]]:
        reader = tf.train.load_checkpoint(prefix)
        return reader.get_variable_to_shape_map(), reader.get_variable_to_dtype_map()

    return timed(job, lambda maps: _rows_digest((k, maps[1][k].name, list(s)) for k, s in maps[0].items()), digest)


def list_lazy_ours(prefix: str, names_file: str, digest: bool = False) -> Timed:
    """The mapping ready, and 1,000 random specs out of it."""
    keys = _sample(names_file, 1000)

    def job() -> list[Any]:
        with openckpt.open(prefix) as ckpt:
            specs = ckpt.specs
            return [specs[key] for key in keys]

    return timed(job, lambda specs: _rows_digest(list(spec.shape) for spec in specs), digest)


def list_lazy_tf(prefix: str, names_file: str, digest: bool = False) -> Timed:
    """TensorFlow's list, and 1,000 random shapes out of it."""
    keys = _sample(names_file, 1000)

    def job() -> list[Any]:
        shapes = dict(tf.train.list_variables(prefix))
        return [shapes[key] for key in keys]

    return timed(job, lambda shapes: _rows_digest(list(shape) for shape in shapes), digest)


def one_tensor_ours(prefix: str, names_file: str, cold: bool = False, digest: bool = False) -> Timed:
    """Open and read one tensor, another one each time."""
    key = random.choice(_names(names_file)) if not digest else _names(names_file)[7]
    if cold:
        drop(prefix)

    def job() -> Any:
        with openckpt.open(prefix) as ckpt:
            return ckpt[key]

    return timed(job, lambda value: value.tobytes().hex(), digest)


def one_tensor_tf(prefix: str, names_file: str, cold: bool = False, digest: bool = False) -> Timed:
    """RestoreV2 of one tensor, another one each time."""
    key = random.choice(_names(names_file)) if not digest else _names(names_file)[7]
    if cold:
        drop(prefix)
    return timed(
        lambda: tf.raw_ops.RestoreV2(prefix=prefix, tensor_names=[key], shape_and_slices=[""], dtypes=[tf.float32])[0],
        lambda value: value.numpy().tobytes().hex(),
        digest,
    )


# ------------------------------------------------------------------------------------------------------------ restore


def drop(prefix: str) -> None:
    """Push the checkpoint's files out of the page cache (of this machine; a host below may still have them)."""
    directory, name = os.path.split(prefix)
    for entry in os.scandir(directory):
        if entry.name.startswith(name):
            fd = os.open(entry.path, os.O_RDONLY)
            os.fdatasync(fd)
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(fd)


def arrays_digest(arrays: dict[str, Any]) -> str:
    """Hash of every key and byte, in order of the keys."""
    digest = hashlib.sha256()
    for key in sorted(arrays):
        digest.update(key.encode() + np.ascontiguousarray(arrays[key]).data.cast("B"))
    return digest.hexdigest()


@functools.cache
def _targets(prefix: str) -> dict[str, Any]:
    """Arrays to read into, every page of them touched."""
    with openckpt.open(prefix) as ckpt:
        arrays = {key: np.empty(spec.shape, spec.numpy_dtype) for key, spec in ckpt.specs.items()}
    for array in arrays.values():
        array.reshape(-1).view(np.uint8)[::4096] = 1
    return arrays


@functools.cache
def _places(prefix: str) -> list[tuple[str, int, int]]:
    """``(key, offset, bytes)`` of every tensor in the one data file."""
    with openckpt.open(prefix) as ckpt:
        return [(key, extent.offset, extent.nbytes) for key in ckpt for extent in ckpt.locate(key)]


def restore_existing_ours(prefix: str, threads: int, verify: bool = True, digest: bool = False) -> Timed:
    """Open, and read everything into arrays that exist."""
    targets = _targets(prefix)

    def job() -> Any:
        with openckpt.open(prefix) as ckpt:
            return ckpt.read_many(targets, out=targets, threads=threads, verify=verify)

    return timed(job, arrays_digest, digest)


def restore_existing_preadv(prefix: str, threads: int, digest: bool = False) -> Timed:
    """The bare system call: every tensor into its array, 16 MiB at a time, nothing checked."""
    targets, places = _targets(prefix), _places(prefix)
    path = f"{prefix}.data-00000-of-00001"

    def job() -> Any:
        fd = os.open(path, os.O_RDONLY)

        def work(mine: list[tuple[str, int, int]]) -> None:
            for key, offset, nbytes in mine:
                view = targets[key].reshape(-1).view(np.uint8).data
                for start in range(0, nbytes, CHUNK):
                    part = view[start : start + CHUNK]
                    if os.preadv(fd, [part], offset + start) != part.nbytes:
                        raise RuntimeError("short read")

        workers = [threading.Thread(target=work, args=(places[number::threads],)) for number in range(1, threads)]
        for worker in workers:
            worker.start()
        work(places[::threads])
        for worker in workers:
            worker.join()
        os.close(fd)
        return targets

    return timed(job, arrays_digest, digest)


def restore_new_ours(prefix: str, threads: int | None = None, cold: bool = False, digest: bool = False) -> Timed:
    """Open, and read everything into new arrays."""
    if cold:
        drop(prefix)

    def job() -> Any:
        with openckpt.open(prefix) as ckpt:
            return ckpt.read_many(list(ckpt), threads=threads)

    return timed(job, arrays_digest, digest)


def restore_tf(prefix: str, cold: bool = False, digest: bool = False) -> Timed:
    """TensorFlow's RestoreV2 of everything; names and dtypes are known beforehand."""
    keys = [key for key, _, _ in _places(prefix)]
    if cold:
        drop(prefix)

    def job() -> Any:
        return tf.raw_ops.RestoreV2(
            prefix=prefix, tensor_names=keys, shape_and_slices=[""] * len(keys), dtypes=[tf.float32] * len(keys)
        )

    return timed(job, lambda values: arrays_digest({k: v.numpy() for k, v in zip(keys, values, strict=True)}), digest)


def restore_safetensors(path: str, digest: bool = False) -> Timed:
    """safetensors' load_file of the same values."""
    from safetensors.numpy import load_file

    return timed(lambda: load_file(path), arrays_digest, digest)


def views_ours(prefix: str, digest: bool = False) -> Timed:
    """Zero-copy views of everything in an open checkpoint; nothing is read."""
    with openckpt.open(prefix) as ckpt:
        return timed(lambda: {key: ckpt.view(key) for key in ckpt}, arrays_digest, digest)


# ------------------------------------------------------------------------------------------------ verify, memory, find


def verify_ours(prefix: str, digest: bool = False) -> Timed:
    """The whole checkpoint proved: open, index checks, every tensor's CRC."""

    def job() -> str:
        return "sound" if openckpt.diagnose(prefix).valid else "damaged"

    return timed(job, str, digest)


@functools.cache
def _data_in_memory(prefix: str) -> list[memoryview]:
    data = memoryview(Path(f"{prefix}.data-00000-of-00001").read_bytes())
    return [data[offset : offset + nbytes] for _, offset, nbytes in _places(prefix)]


def verify_bare_crc(prefix: str, threads: int, digest: bool = False) -> Timed:
    """The CRC library alone, over the same tensors already in memory."""
    from fastcrc.crc32 import iscsi

    return _verify_threads(_data_in_memory(prefix), threads, iscsi, digest)


def verify_pread_crc(prefix: str, threads: int, digest: bool = False) -> Timed:
    """The CRC library behind bare system calls: 1 MiB read into a buffer, then hashed."""
    from fastcrc.crc32 import iscsi

    fd = os.open(f"{prefix}.data-00000-of-00001", os.O_RDONLY)

    def check(place: tuple[str, int, int]) -> None:
        scratch = _SCRATCH.__dict__.setdefault("buffer", memoryview(bytearray(1 << 20)))
        _, offset, nbytes = place
        crc = 0
        for start in range(0, nbytes, 1 << 20):
            part = scratch[: min(1 << 20, nbytes - start)]
            os.preadv(fd, [part], offset + start)
            crc = iscsi(part, crc)

    try:
        return _verify_threads(_places(prefix), threads, check, digest)
    finally:
        os.close(fd)


_SCRATCH = threading.local()


def _verify_threads(pieces: list[Any], threads: int, check: Callable[[Any], Any], digest: bool) -> Timed:
    def job() -> str:
        def work(mine: list[Any]) -> None:
            for piece in mine:
                check(piece)

        workers = [threading.Thread(target=work, args=(pieces[number::threads],)) for number in range(1, threads)]
        for worker in workers:
            worker.start()
        work(pieces[::threads])
        for worker in workers:
            worker.join()
        return "sound"

    return timed(job, str, digest)


def _status(field: str) -> int:
    for line in Path("/proc/self/status").read_text("ascii").splitlines():
        if line.startswith(field):
            return int(line.split()[1]) * 1024
    raise RuntimeError(field)


def growth(job: str, **arguments: Any) -> int:
    """Peak memory of another job above what the process held before it, in bytes."""
    return peak_growth(lambda: globals()[job](**arguments))


def peak_growth(job: Callable[[], Any]) -> int:
    """Peak memory while something runs above what the process held before, in bytes."""
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts again from here
    before = _status("VmRSS")
    job()
    return _status("VmHWM") - before


def forget() -> None:
    """Drop everything that is kept between calls: the next race may be about other data."""
    for cached in (_names, _sample, _targets, _places, _data_in_memory):
        cached.cache_clear()
    gc.collect()


def _names_count(names_file: str) -> int:
    """Load the names before memory is measured."""
    return len(_names(names_file))


def find_ours(root: str, digest: bool = False) -> Timed:
    """Walk a tree and group every file into checkpoints."""
    return timed(
        lambda: list(openckpt.find(root)), lambda found: f"{len(found)} {sum(one.complete for one in found)}", digest
    )


def list_each_tf(root: str, digest: bool = False) -> Timed:
    """TensorFlow's list_variables of every prefix in the tree; finding them is not counted."""
    prefixes = [str(path)[: -len(".index")] for path in Path(root).rglob("*.index")]
    return timed(
        lambda: [tf.train.list_variables(prefix) for prefix in prefixes],
        lambda found: f"{len(found)} {len(found)}",
        digest,
    )
