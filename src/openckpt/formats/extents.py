"""Moving fixed-size elements from files into arrays: the engine behind every format that stores plain bytes.

A `Request` names bytes in a source and what array they make. Three ways to satisfy requests:

* `read_arrays`: new arrays, or the caller's; large ones by positioned reads of 1 MiB, each hashed while it is in the cache,
  small neighbours by one read for many; large work spread over threads;
* `view_array`: an array over the file's own map, nothing read;
* `check_requests`: only the checksums.

Measured reasons for the numbers below stand in docs/benchmarks.md: fresh memory costs more than copying, so neighbours share
one allocation; threads pay from about 1 MiB a tensor and hurt below.
"""

from __future__ import annotations

import queue
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from openckpt.errors import CheckpointError, CorruptionError, MismatchError, UnsupportedError, Where
from openckpt.formats.crc import crc32c
from openckpt.formats.workers import Work, compute_ahead, run_all
from openckpt.limits import Limits

if TYPE_CHECKING:
    import numpy as np

    from openckpt.findings import Progress
    from openckpt.formats.spec import Array
    from openckpt.storage.reading import ByteSource

_CHUNK = 1 << 20  # read and hash this much at a time: it stays in the second-level cache between the two
_LARGE = 1 << 20  # a tensor of this size is its own piece of work
_RUN = 16 << 20  # neighbours are read together up to this much
_GAP = 4096  # bytes between neighbours that are cheaper to read than to skip


class Request(NamedTuple):
    """One array to be read: its bytes in a source, its dtype as stored and its shape, the CRC to check or None."""

    key: str
    source: ByteSource
    offset: int
    nbytes: int
    dtype: np.dtype[np.generic]
    shape: tuple[int, ...]
    crc: int | None = None


OnMismatch = Callable[[Request, int], CheckpointError]
"""Makes the error for a request whose bytes have another CRC than stated; gets the computed one."""


def check_bounds(source: ByteSource, offset: int, nbytes: int, key: str, code: str) -> None:
    """Raise CorruptionError ``code`` when the file ends before the bytes of a tensor do."""
    if offset < 0 or nbytes < 0 or offset + nbytes > source.size:
        raise CorruptionError(
            code,
            Where(source.path, key, offset),
            f"the file ends before this tensor's {nbytes} bytes do",
            expected=f"at least {offset + nbytes} bytes",
            found=f"{source.size} bytes",
        )


def check_target(array: Array, dtype: np.dtype[np.generic], shape: tuple[int, ...], path: str, key: str) -> None:
    """Raise MismatchError ``spec.bad-target`` unless ``array`` can take the value as it is."""
    flags = array.flags
    if array.dtype == dtype and array.shape == shape and flags.c_contiguous and flags.writeable:
        return
    kind = "" if flags.c_contiguous and flags.writeable else ", not writable and C-contiguous"
    raise MismatchError(
        "spec.bad-target",
        Where(path, key),
        "the array given for this tensor does not fit",
        expected=f"{dtype} {list(shape)}",
        found=f"{array.dtype} {list(array.shape)}{kind}",
    )


def view_array(request: Request) -> Array:
    """Return a read-only array over the map of the request's file; it stays valid after the file is closed.

    Raises:
        UnsupportedError: the medium cannot be mapped (``spec.no-view``).
    """
    import numpy as np

    mapped = request.source.map()
    if mapped is None:
        raise UnsupportedError(
            "spec.no-view",
            Where(request.source.path, request.key),
            "these bytes lie compressed or far away, and cannot be mapped",
        )
    return np.ndarray(request.shape, request.dtype, mapped, request.offset)


def read_arrays(
    requests: Sequence[Request],
    *,
    mismatch: OnMismatch,
    limits: Limits,
    out: Sequence[Array | None] | None = None,
    threads: int | None = None,
) -> list[Array]:
    """Return the arrays of ``requests``, in their order.

    Args:
        requests: what to read; CRCs are checked where a request has one.
        mismatch: makes the error for a wrong CRC.
        limits: ``tensor_bytes`` caps one array.
        out: arrays to fill instead of new ones (already checked with `check_target`), aligned with ``requests``.
        threads: workers for large arrays; None = one per core up to 8, when there is work for several.

    New small arrays that lie next to each other in the file are views of one common allocation.
    """
    import numpy as np

    results: list[Array | None] = list(out) if out is not None else [None] * len(requests)
    work: Work = []
    small: list[int] = []
    for number, request in enumerate(requests):
        if request.nbytes < _LARGE:
            small.append(number)
            continue
        array = results[number]
        if array is None:
            limits.check(
                "tensor_bytes", request.nbytes, Where(request.source.path, request.key), "the size of a tensor"
            )
            array = results[number] = np.empty(request.shape, request.dtype)
        work.append((request.nbytes, _large_read(request, array.reshape(-1).view(np.uint8).data, mismatch)))
    if len(work) > 1:
        _begin(request for request in requests if request.nbytes >= _LARGE)
    runs = list(_runs(requests, small))
    if runs:
        _read_runs(requests, runs, results, mismatch, pipelined=threads != 1 and len(runs) > 2)
    run_all(work, threads)
    return results  # type: ignore[return-value]  # every slot is filled by now


def check_requests(
    requests: Sequence[Request],
    what: str = "checking",
    *,
    threads: int | None = None,
    progress: Progress | None = None,
) -> Iterator[tuple[Request, int | CheckpointError]]:
    """Yield every request whose bytes do not have its CRC, with the computed CRC or the error of the read.

    Args:
        requests: what to check.
        what: names the work for ``progress``.
        threads: how many; one per core up to 8 when not given.
        progress: called, from the calling thread, as pieces of work are done.
    """
    total = sum(request.nbytes for request in requests)
    done = 0

    def tick(nbytes: int) -> None:
        nonlocal done
        done += nbytes
        if progress is not None:
            progress(what, done, total)

    bad: list[tuple[Request, int | CheckpointError]] = []
    work: Work = []
    batch: list[Request] = []
    batch_bytes = 0

    def check(group: list[Request]) -> Callable[[], None]:
        def run() -> None:
            scratch = memoryview(bytearray(min(_CHUNK, max(r.nbytes for r in group) or 1)))
            for request in group:
                try:
                    computed = _hash(request, scratch)
                except CheckpointError as error:
                    bad.append((request, error))
                    continue
                if computed != request.crc:
                    bad.append((request, computed))

        return run

    for request in sorted(requests, key=lambda r: (r.source.path, r.offset)):
        batch.append(request)
        batch_bytes += request.nbytes
        if batch_bytes >= _RUN:
            work.append((batch_bytes, check(batch)))
            batch, batch_bytes = [], 0
    if batch:
        work.append((batch_bytes, check(batch)))
    _begin(requests)
    run_all(work, threads, tick)
    yield from sorted(bad, key=lambda item: (item[0].source.path, item[0].offset))


def prove_requests(requests: Sequence[Request], *, mismatch: OnMismatch) -> None:
    """Read the bytes of requests for nothing but their checksums; raises what ``mismatch`` makes for the first wrong one.

    Neighbours are read together, large tensors in pieces: no more than 1 MiB of memory per worker.
    """
    runs = list(_runs(requests, range(len(requests)), _CHUNK))
    work: Work = []
    batch: list[list[int]] = []
    nbytes = 0
    for run in runs:
        batch.append(run)
        nbytes += _run_end(requests, run) - requests[run[0]].offset
        if nbytes >= _RUN:
            work.append((nbytes, _proof(requests, batch, mismatch)))
            batch, nbytes = [], 0
    if batch:
        work.append((nbytes, _proof(requests, batch, mismatch)))
    _begin(requests)
    run_all(work, None)


def _proof(requests: Sequence[Request], runs: list[list[int]], mismatch: OnMismatch) -> Callable[[], None]:
    def run() -> None:
        scratch = memoryview(bytearray(2 * _CHUNK))
        for numbers in runs:
            first = requests[numbers[0]]
            size = _run_end(requests, numbers) - first.offset
            if size > len(scratch):  # one large tensor, or a hostile index whose tensors overlap
                computed = [_hash(requests[number], scratch[:_CHUNK]) for number in numbers]
            else:
                first.source.read_into(first.offset, scratch[:size])
                computed = []
                for number in numbers:
                    at = requests[number].offset - first.offset
                    computed.append(crc32c(scratch[at : at + requests[number].nbytes]))
            for number, crc in zip(numbers, computed, strict=True):
                if crc != requests[number].crc:
                    raise mismatch(requests[number], crc)

    return run


def _begin(requests: Iterable[Request]) -> None:
    """Touch every source on the calling thread.

    The first read of a member of a compressed archive unpacks it all: that is told as progress from the thread that reads, and
    only the calling one ends at Ctrl-C.
    """
    for source in {id(request.source): request.source for request in requests}.values():
        try:
            source.read_at(0, 0)
        except CheckpointError:
            pass  # the tensors that lie in it will say so


def _hash(request: Request, scratch: memoryview) -> int:
    crc, offset, end = 0, request.offset, request.offset + request.nbytes
    read = request.source.read_into
    while offset < end:
        part = scratch[: min(len(scratch), end - offset)]
        read(offset, part)
        crc = crc32c(part, crc)
        offset += len(part)
    return crc


def _large_read(request: Request, target: memoryview, mismatch: OnMismatch) -> Callable[[], None]:
    def run() -> None:
        read, base, size = request.source.read_into, request.offset, request.nbytes
        if request.crc is None:
            for at in range(0, size, 16 * _CHUNK):
                read(base + at, target[at : at + 16 * _CHUNK])
            return
        crc = 0
        for at in range(0, size, _CHUNK):
            part = target[at : at + _CHUNK]
            read(base + at, part)
            crc = crc32c(part, crc)
        if crc != request.crc:
            raise mismatch(request, crc)

    return run


def _runs(requests: Sequence[Request], numbers: Iterable[int], most: int = _RUN) -> Iterator[list[int]]:
    """Group requests that lie next to each other in one file, in file order, up to about ``most`` bytes."""
    run: list[int] = []
    source: ByteSource | None = None
    start = end = 0
    places = sorted([(id(requests[n].source), requests[n].offset, n) for n in numbers])
    for _, offset, number in places:
        request = requests[number]
        stop = offset + request.nbytes
        if run and (request.source is not source or offset - end > _GAP or stop - start > most):
            yield run
            run = []
        if not run:
            source, start, end = request.source, offset, stop
        run.append(number)
        end = max(end, stop)
    if run:
        yield run


def _read_runs(
    requests: Sequence[Request],
    runs: list[list[int]],
    results: list[Array | None],
    mismatch: OnMismatch,
    *,
    pipelined: bool,
) -> None:
    """Read each run with one call and cut it into arrays.

    Pipelined, a second thread reads the next runs meanwhile. Cutting stays on the calling thread: many small checksums on two
    threads only pass the GIL to and fro (measured: twice as slow).
    """
    import numpy as np

    # The caller's arrays are filled through scratch memory that is used again: fresh pages cost more than the copy.
    reuse = all(results[number] is not None for run in runs for number in run)
    size = max(_run_end(requests, run) - requests[run[0]].offset for run in runs) if reuse else 0
    spare: queue.SimpleQueue[np.ndarray[tuple[int], np.dtype[np.uint8]]] = queue.SimpleQueue()
    for _ in range(3 if reuse and pipelined else 1 if reuse else 0):
        spare.put(np.empty(size, np.uint8))

    def fetch(run: list[int]) -> np.ndarray[tuple[int], np.dtype[np.uint8]]:
        first = requests[run[0]]
        nbytes = _run_end(requests, run) - first.offset
        arena = spare.get() if reuse else np.empty(nbytes, np.uint8)
        if nbytes:
            first.source.read_into(first.offset, arena.data[:nbytes])
        return arena

    arenas = compute_ahead(fetch, runs) if pipelined else (fetch(run) for run in runs)
    try:
        for run, arena in zip(runs, arenas, strict=True):
            _cut(requests, run, arena, results, mismatch)
            if reuse:
                spare.put(arena)
    finally:
        if reuse:  # after an error the other thread may still wait for memory; what it reads is thrown away
            for _ in range(3):
                spare.put(np.empty(size, np.uint8))
        arenas.close()


def _run_end(requests: Sequence[Request], run: list[int]) -> int:
    # Not simply the last one's: overlapping requests (a hostile index) may reach further.
    return max([requests[number].offset + requests[number].nbytes for number in run])


def _cut(
    requests: Sequence[Request],
    run: list[int],
    arena: np.ndarray[tuple[int], np.dtype[np.uint8]],
    results: list[Array | None],
    mismatch: OnMismatch,
) -> None:
    """Check every request of a run against its CRC and make its array of the bytes in ``arena``."""
    import numpy as np

    base = requests[run[0]].offset
    buffer = arena.data
    make = np.ndarray
    alignments: dict[np.dtype[np.generic], int] = {}
    taken = 0  # where bytes begin that no array lies over yet: entries may share theirs, arrays must not
    for number in run:
        request = requests[number]
        _, _, offset, length, dtype, shape, crc = request
        at = offset - base
        stop = at + length
        if crc is not None:
            computed = crc32c(buffer[at:stop])
            if computed != crc:
                raise mismatch(request, computed)
        target = results[number]
        if target is not None:
            if length:
                target.reshape(-1).view(np.uint8).data[:] = buffer[at:stop]
            continue
        alignment = alignments.get(dtype)
        if alignment is None:
            alignment = alignments[dtype] = dtype.alignment
        if at % alignment or at < taken:
            copy = np.empty(shape, dtype)
            copy.reshape(-1).view(np.uint8).data[:] = buffer[at:stop]
            results[number] = copy
        else:
            results[number] = make(shape, dtype, arena, at)
            taken = stop
