"""What the next delta save may share: the data files of one checkpoint, and where in them the program's values lie.

Known from the save that wrote it, or, behind a restore, read back:

    index      where each tensor lies, and its CRC-32C          both must be those
    data file  its bytes                                        of the value in memory
    header     which tensors it was written with: what does not count any more is dead weight
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from typing import Any, NamedTuple

from xxhash import xxh3_128_digest

from openckpt.errors import CheckpointError, Where
from openckpt.formats.bundle.opening import open_bundle
from openckpt.formats.bundle.reader import BundleReader
from openckpt.formats.crc import crc32c
from openckpt.formats.dtypes import BY_NAME
from openckpt.formats.dual.parsing import DualShard
from openckpt.formats.safetensors_header import read_header
from openckpt.formats.spec import TensorSpec
from openckpt.storage.reading import ByteSource
from openckpt.storage.writable import WritableStore
from openckpt.writing.linking import FileId, Placed, identify
from openckpt.writing.values import direct_bytes, encode

_FIRST_BYTES, _CHUNK_BYTES = 4096, 1 << 20
"""of a tensor that are read at once: what a step of training has changed differs at its beginning"""


class Known(NamedTuple):
    """A tensor as the checkpoint has it: its place, and the hash of its bytes."""

    placed: Placed
    digest: bytes


class DataFile(NamedTuple):
    """A data file: its name, what tells it from others (None: never shared), and the tensor bytes that it was written with."""

    path: str
    id: FileId | None
    payload: int


@dataclass(frozen=True, slots=True)
class Shareable:
    """The data files of a checkpoint, by number, and those of its tensors that may be linked."""

    store: WritableStore
    files: Sequence[DataFile]
    tensors: Mapping[str, Known]


def bytes_of(value: Any, spec: TensorSpec, where: Where) -> memoryview:
    """Return the bytes of a value as they are stored, without a copy where that can be."""
    data = direct_bytes(value)
    return memoryview(encode(value, BY_NAME[spec.dtype], where).data) if data is None else data


def digest_of(value: Any, spec: TensorSpec, where: Where) -> bytes:
    """Return the 128-bit hash (xxh3) of a value's bytes."""
    return xxh3_128_digest(bytes_of(value, spec, where))


def nbytes_of(specs: Iterable[TensorSpec]) -> int:
    """Return the bytes of tensors, those of unknown size left out."""
    return sum(spec.nbytes or 0 for spec in specs)


def find_shareable(
    store: WritableStore, prefix: str, path: str, values: Mapping[str, Any], specs: Mapping[str, TensorSpec]
) -> Shareable | None:
    """Return what of a restored checkpoint is as a program has it now.

    Reads nothing but the beginning of a tensor that has changed. None where the checkpoint is not one that openckpt wrote into the
    directory of ``path``, or is not whole any more.

    Args:
        store: where the next save goes.
        prefix: the checkpoint that was restored.
        path: the next one.
        values: of the program, by key.
        specs: of the values.
    """
    try:
        if not _is_same_directory(store, prefix, path):
            return None
        with closing(open_bundle(store, prefix)) as stored, ExitStack() as sources:
            return _compare(store, stored, values, specs, sources)
    except (CheckpointError, OSError):
        return None


def _is_same_directory(store: WritableStore, prefix: str, path: str) -> bool:
    one, other = (store.stat(store.split(name)[0] or ".") for name in (prefix, path))
    return one is not None and other is not None and one.identity[:2] == other.identity[:2]


def _compare(
    store: WritableStore,
    stored: BundleReader,
    values: Mapping[str, Any],
    specs: Mapping[str, TensorSpec],
    sources: ExitStack,
) -> Shareable:
    files, opened = [], list[ByteSource]()
    for number in range(stored.shards.count):
        path = stored.shards.path(number)
        file = identify(store, path)  # before it is read: what has changed by the next save is not linked
        opened.append(sources.enter_context(closing(store.open(path))))
        header = read_header(opened[-1]).dual
        files.append(DataFile(path, None if header is None else file, _payload(header)))
    there = dict(stored.items())
    alike = [key for key, spec in specs.items() if BY_NAME[spec.dtype].itemsize and there.get(key) == spec]
    extents = {key: stored.locate(key) for key in alike}
    places = sorted((own[0].shard, own[0].offset, key, own[0].crc) for key, own in extents.items() if len(own) == 1)
    tensors = {}
    for shard, offset, key, crc in places:
        data = bytes_of(values[key], specs[key], Where(stored.prefix, key))
        if crc is not None and _is_there(data, opened[shard], offset) and crc32c(data) == crc:
            tensors[key] = Known(Placed(specs[key], shard, offset, crc), xxh3_128_digest(data))
    return Shareable(store, files, tensors)


def _payload(header: DualShard | None) -> int:
    return 0 if header is None else nbytes_of(entry.spec for entry in header.entries)


def _is_there(data: memoryview, source: ByteSource, offset: int) -> bool:
    """Return whether these bytes lie there; compared by their hashes, which is quicker than byte by byte."""
    buffer = memoryview(bytearray(min(len(data), _CHUNK_BYTES)))
    at, size = 0, _FIRST_BYTES
    while at < len(data):
        part = data[at : at + size]
        source.read_into(offset + at, buffer[: len(part)])
        if xxh3_128_digest(buffer[: len(part)]) != xxh3_128_digest(part):
            return False
        at, size = at + len(part), _CHUNK_BYTES
    return True
