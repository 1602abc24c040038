"""The elements of a dataset that is not one plain run of numbers: chunks, fill values, strings.

Chunks are found through libhdf5 and then read and decoded here (`openckpt.formats.hdf5.filters`), each compared with the file
before a byte of it is read. Strings of variable length lie in global heap collections:

    "GCOL" 1 0 0 0 | size:L | object*    object = index:2 references:2 0:4 size:L data, padded to 8; index 0 = free space
    element of the dataset: length:4 address:O index:4
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, cast

from openckpt.errors import CheckpointError, CorruptionError, LimitError, UnsupportedError, Where
from openckpt.formats.dtypes import BY_NAME
from openckpt.formats.flat import byte_view
from openckpt.formats.hdf5.filters import LZF, OURS, SZIP, Filter, decode_chunk
from openckpt.formats.hdf5.library import LIBRARY_ERRORS, opened, unreadable
from openckpt.formats.hdf5.report import Dataset, HDF5Report, Problem, problem_of
from openckpt.formats.hdf5.superblock import Superblock, read_superblock

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

    where = Where(source.path, dataset.path)
    if dataset.refusal is not None:
        raise dataset.refusal.error(source.path)
    try:
        raw = _raw(source, dataset, where)
        if dataset.text is not None:
            return _strings(source, dataset, raw)
        plain = BY_NAME[dataset.dtype].numpy()
        if dataset.big_endian:
            return raw.view(plain.newbyteorder(">")).astype(plain)
        if plain.kind == "b":
            return cast("Array", raw.view(np.uint8) != 0)
        return raw.view(plain)
    except MemoryError:
        raise LimitError("limits.exceeded", where, "no memory for a tensor of this size") from None


def check_data(source: ByteSource, report: HDF5Report, progress: Progress | None = None) -> Iterator[Problem]:
    """Yield what goes wrong when every dataset that is packed in some way is read; plain runs have no checksum to check."""
    packed = [d for d in report.datasets if d.refusal is None and (d.text is not None or d.storage == "chunked")]
    for number, dataset in enumerate(packed):
        if progress is not None:
            progress("checking HDF5 chunks", number, len(packed))
        try:
            read_dataset(source, dataset)
        except CheckpointError as error:
            yield problem_of(error)


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
    import numpy as np

    block = read_superblock(source)
    fields = [("length", "<u4"), ("address", f"<u{block.offset_size}"), ("index", "<u4")]
    rows = raw.view(np.dtype(fields)).reshape(-1).tolist()
    heap = _Heap(source, block, Where(source.path, dataset.path))
    return [heap.get(*row) for row in rows]


class _Heap:
    """Global heap collections, read when first needed. An object that many elements share is one `bytes` object."""

    def __init__(self, source: ByteSource, block: Superblock, where: Where) -> None:
        self._source = source
        self._block = block
        self._where = where
        self._tables: dict[int, dict[int, tuple[int, int]]] = {}
        self._values: dict[tuple[int, int, int], bytes] = {}
        self._read = 0

    def get(self, length: int, address: int, index: int) -> bytes:
        """Return the string of ``length`` bytes that is object ``index`` of the collection at ``address``."""
        if length == 0:
            return b""
        value = self._values.get((length, address, index))
        if value is None:
            if address not in self._tables:
                self._tables[address] = self._table(address + self._block.offset)
            place, stored = self._tables[address].get(index, (0, -1))
            if length > stored:
                raise self._bad(address, f"object {index} of the heap is missing or shorter than {length} bytes")
            # libhdf5 hands out C strings, which end at the first zero byte
            value = self._source.read_at(place, length).partition(b"\0")[0]
            self._values[length, address, index] = value
        return value

    def _table(self, at: int) -> dict[int, tuple[int, int]]:
        """Return ``{index: (offset in the file, bytes)}`` of the collection at ``at``."""
        header = 8 + self._block.length_size
        if at + header > self._source.size:
            raise self._bad(at, "the heap lies beyond the end of the file")
        head = self._source.read_at(at, header)
        size = int.from_bytes(head[8:], "little")
        # collections that claim each other's bytes would be read again and again
        self._read += size
        if head[:4] != b"GCOL" or size < header or at + size > self._source.size or self._read > 2 * self._source.size:
            raise self._bad(at, "no heap collection where a string should be, or one larger than the file")
        data = self._source.read_at(at, size)
        objects: dict[int, tuple[int, int]] = {}
        place = header
        while place + header <= size:
            index = int.from_bytes(data[place : place + 2], "little")
            length = int.from_bytes(data[place + 8 : place + header], "little")
            if index == 0:
                break
            place += header
            if place + length > size:
                raise self._bad(at + place, "an object of the heap is larger than its collection")
            objects[index] = (at + place, length)
            place += -(-length // 8) * 8
        return objects

    def _bad(self, offset: int, message: str) -> CorruptionError:
        return CorruptionError("hdf5.heap", Where(self._where.path, self._where.key, offset), message)
