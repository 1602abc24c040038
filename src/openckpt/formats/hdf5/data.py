"""The elements of a dataset that is not one plain run of numbers: chunks, fill values, strings.

Chunks are found through libhdf5 and then read and decoded here (`openckpt.formats.hdf5.filters`), each compared with the file
before a byte of it is read. Strings of variable length lie in the global heap (`openckpt.formats.hdf5.heap`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, cast

from openckpt.errors import CheckpointError, CorruptionError, UnsupportedError, Where
from openckpt.formats.carried import BLOBS, is_same_bytes, value_of
from openckpt.formats.dtypes import BY_NAME
from openckpt.formats.flat import byte_view
from openckpt.formats.hdf5.filters import LZF, OURS, SZIP, Filter, decode_chunk
from openckpt.formats.hdf5.heap import GlobalHeap
from openckpt.formats.hdf5.library import LIBRARY_ERRORS, opened, unreadable
from openckpt.formats.hdf5.report import Dataset, HDF5Report, Problem, problem_of
from openckpt.formats.hdf5.superblock import read_superblock
from openckpt.limits import no_memory

if TYPE_CHECKING:
    from h5py import h5d

    from openckpt.findings import Progress
    from openckpt.formats.spec import Array
    from openckpt.storage.reading import ByteSource


def read_dataset(source: ByteSource, dataset: Dataset) -> Array:
    """Return the value of a dataset as a new array: native numbers, or an object array of bytes.

    Raises:
        CheckpointError: the refusal of the dataset, or what is wrong with its bytes (``hdf5.chunk-...``, ``hdf5.heap``).
    """
    import numpy as np

    where = Where(source.path, dataset.key)
    if dataset.refusal is not None:
        raise dataset.refusal.error(source.path)
    try:
        raw = _raw(source, dataset, where)
        if dataset.text is not None:
            strings = _strings(source, dataset, raw)
            return strings if dataset.carried is None else strings.reshape(dataset.carried.shape)
        if dataset.carried is not None and not is_same_bytes(dataset.carried.dtype):
            return value_of(raw, dataset.carried, where, "hdf5.carried")
        plain = BY_NAME[dataset.dtype].numpy()
        if dataset.big_endian:
            return raw.view(plain.newbyteorder(">")).astype(plain)
        if plain.kind == "b":
            return cast("Array", raw.view(np.uint8) != 0)
        return raw.view(plain)
    except MemoryError:
        raise no_memory(where, "a tensor of this size") from None


def check_data(source: ByteSource, report: HDF5Report, progress: Progress | None = None) -> Iterator[Problem]:
    """Yield what goes wrong when every dataset that is packed in some way is read; plain runs have no checksum to check."""
    packed = [d for d in report.datasets if d.refusal is None and _is_packed(d)]
    for number, dataset in enumerate(packed):
        if progress is not None:
            progress("checking HDF5 chunks", number, len(packed))
        try:
            read_dataset(source, dataset)
        except CheckpointError as error:
            yield problem_of(error)


def _is_packed(dataset: Dataset) -> bool:
    blob = dataset.carried is not None and dataset.carried.dtype in BLOBS
    return blob or dataset.text is not None or dataset.storage == "chunked"


def _raw(source: ByteSource, dataset: Dataset, where: Where) -> Array:
    """Return the stored elements as opaque items of the file's size."""
    import numpy as np

    shape, dtype = dataset.shape or (), np.dtype(f"V{dataset.itemsize}")
    if dataset.storage == "contiguous":
        array: Array = np.empty(shape, dtype)
        source.read_into(dataset.offset or 0, byte_view(array))
        return array
    with opened(source) as root:
        from h5py import h5d, h5s

        did = h5d.open(root, dataset.path.encode("utf-8", "surrogateescape"))
        if (
            tuple(did.get_space().get_simple_extent_dims()) != shape
            or did.get_create_plist().get_layout() == h5d.VIRTUAL
        ):
            raise CorruptionError("storage.changed", where, "the dataset is not what it was when the file was opened")
        if dataset.storage == "compact":
            array = np.empty(shape, dtype)
            did.read(h5s.ALL, h5s.ALL, array, did.get_type())
            return array
        array = np.zeros(shape, dtype)
        fill = _fill_value(did, dataset, where)
        if any(fill) and array.size:
            array[...] = np.frombuffer(fill, dtype)[0]
        if dataset.storage == "chunked":
            _read_chunks(source, did, dataset, array, where)
        return array


def _fill_value(did: h5d.DatasetID, dataset: Dataset, where: Where) -> bytes:
    """Return the stored form of the element that stands where nothing was written."""
    import numpy as np
    from h5py import h5d

    plan = did.get_create_plist()
    if plan.fill_value_defined() != h5d.FILL_VALUE_USER_DEFINED:
        return bytes(dataset.itemsize)
    if dataset.text == "variable" or dataset.dtype.startswith(("bfloat16", "float8_")):
        message = f"a fill value of type {dataset.dtype} is not read"
        raise UnsupportedError("hdf5.layout", where, message)
    plain = np.dtype(f"S{dataset.itemsize}") if dataset.text else BY_NAME[dataset.dtype].numpy()
    value: Array = np.zeros((), plain.newbyteorder(">") if dataset.big_endian else plain)
    plan.get_fill_value(value)
    return value.tobytes()


@dataclass(frozen=True, slots=True)
class _Chunk:
    origin: tuple[int, ...]
    skipped: int
    offset: int
    nbytes: int


def _chunks(did: h5d.DatasetID, most: int, where: Where) -> list[_Chunk]:
    """Return where the chunks lie; a file with more of them than the dataset has places for is refused."""
    found: list[_Chunk] = []

    def note(info: h5d.StoreInfo) -> bool | None:
        place = 0 if info.byte_offset is None else int(info.byte_offset)
        found.append(_Chunk(tuple(map(int, info.chunk_offset)), int(info.filter_mask), place, int(info.size)))
        return True if len(found) > most else None

    if hasattr(did, "chunk_iter"):
        did.chunk_iter(note)
    else:  # HDF5 before 1.12.3
        for number in range(min(did.get_num_chunks(), most + 1)):
            note(did.get_chunk_info(number))
    if len(found) > most:
        raise CorruptionError(
            "hdf5.chunk-damaged", where, "there are more chunks than the dataset has places for", expected=most
        )
    return found


def _read_chunks(source: ByteSource, did: h5d.DatasetID, dataset: Dataset, array: Array, where: Where) -> None:
    import numpy as np

    plan, shape = did.get_create_plist(), dataset.shape or ()
    chunk = tuple(map(int, plan.get_chunk()))
    size = prod(chunk) * dataset.itemsize
    steps = (plan.get_filter(i) for i in range(plan.get_nfilters()))
    pipeline = tuple(Filter(int(step[0]), tuple(map(int, step[2]))) for step in steps)
    most = prod(-(-length // side) for length, side in zip(shape, chunk, strict=True))
    chunks = _chunks(did, most, where)
    for info in chunks:
        if info.offset + info.nbytes > source.size or any(
            start % side or start >= length for start, side, length in zip(info.origin, chunk, shape, strict=True)
        ):
            place = Where(where.path, where.key, info.offset)
            raise CorruptionError(
                "hdf5.chunk-damaged", place, f"the chunk at {info.origin} lies outside the file or the dataset"
            )
    if not {step.number for step in pipeline} <= OURS:
        _read_by_library(source, did, dataset, pipeline, chunks, size, array, where)
        return
    for info in chunks:
        place = Where(where.path, where.key, info.offset)
        piece = decode_chunk(source.read_at(info.offset, info.nbytes), pipeline, info.skipped, size, place)
        block = np.frombuffer(piece, array.dtype).reshape(chunk)
        target = tuple(slice(start, start + side) for start, side in zip(info.origin, chunk, strict=True))
        part = array[target]
        part[...] = block[tuple(slice(0, length) for length in part.shape)]


def _read_by_library(
    source: ByteSource,
    did: h5d.DatasetID,
    dataset: Dataset,
    pipeline: tuple[Filter, ...],
    chunks: list[_Chunk],
    size: int,
    array: Array,
    where: Where,
) -> None:
    """Let libhdf5 decode lzf and szip, alone or with shuffle and checksum, after the sizes that it will trust were checked."""
    from h5py import h5s

    numbers = [step.number for step in pipeline]
    packers = [number for number in numbers if number not in (2, 3)]
    if dataset.text == "variable" or packers not in ([LZF], [SZIP]):
        raise UnsupportedError("hdf5.filter", where, "filters in a combination that is not read", found=numbers)
    for info in chunks:
        if packers == [SZIP] and not info.skipped:
            # szip chunks begin with their size, and libhdf5 allocates it
            stated = int.from_bytes(source.read_at(info.offset, min(4, info.nbytes)), "little")
            if stated > size + 4:
                place = Where(where.path, where.key, info.offset)
                raise CorruptionError(
                    "hdf5.chunk-damaged", place, "the szip chunk states another size", expected=size, found=stated
                )
    try:
        did.read(h5s.ALL, h5s.ALL, array, did.get_type())
    except LIBRARY_ERRORS as error:
        raise unreadable(where, error, "hdf5.chunk-damaged") from None


def _strings(source: ByteSource, dataset: Dataset, raw: Array) -> Array:
    import numpy as np

    values: list[bytes]
    if dataset.text == "variable":
        values = _heap_strings(source, dataset, raw)
    else:
        values = raw.view(f"S{dataset.itemsize}").reshape(-1).tolist()
        if dataset.text == "terminated":
            values = [value.partition(b"\0")[0] for value in values]
    result: Array = np.empty(raw.shape, object)
    result.reshape(-1)[:] = values
    return result


def _heap_strings(source: ByteSource, dataset: Dataset, raw: Array) -> list[bytes]:
    block = read_superblock(source)
    heap = GlobalHeap(source, block, Where(source.path, dataset.path))
    return heap.strings(raw.tobytes())
