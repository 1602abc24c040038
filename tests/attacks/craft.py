"""Tables and bundles made by hand, right or wrong in any one place. Shares no code with openckpt's own encoders.

Functions return bytes; everything that a file computes (lengths, counts, handles, checksums) has an argument that overrides it.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence

from fastcrc.crc32 import iscsi

MAGIC = bytes.fromhex("57fb808b247547db")
GRAPH_KEY = b"_CHECKPOINTABLE_OBJECT_GRAPH"


def varint(value: int, *, pad: int = 0) -> bytes:
    """Encode an integer (negative as 10 bytes); ``pad`` adds that many needless bytes."""
    value &= (1 << 64) - 1
    out = bytearray()
    while True:
        more = value > 0x7F or pad > 0
        if value <= 0x7F and pad > 0:
            pad -= 1
        out.append(value & 0x7F | (0x80 if more else 0))
        value >>= 7
        if not more:
            return bytes(out)


def field(number: int, value: int | bytes) -> bytes:
    """One proto field: an integer as varint, bytes with a length."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def fixed32(number: int, value: int) -> bytes:
    """One proto field of four bytes."""
    return varint(number << 3 | 5) + struct.pack("<I", value)


def masked(crc: int) -> int:
    return ((crc >> 15 | crc << 17 & 0xFFFFFFFF) + 0xA282EAD8) & 0xFFFFFFFF


# ------------------------------------------------------------------------------------------------------------- tables


def entry_bytes(
    key: bytes, value: bytes, *, shared: int = 0, non_shared: int | None = None, length: int | None = None
) -> bytes:
    """One block entry; ``key`` is only the part that is stored."""
    return (
        varint(shared)
        + varint(len(key) if non_shared is None else non_shared)
        + varint(len(value) if length is None else length)
        + key
        + value
    )


def block(entries: Iterable[bytes], *, restarts: Sequence[int] = (0,), count: int | None = None) -> bytes:
    """A block of ready-made entries with its restart points."""
    points = b"".join(struct.pack("<I", point & 0xFFFFFFFF) for point in restarts)
    return b"".join(entries) + points + struct.pack("<I", len(restarts) if count is None else count & 0xFFFFFFFF)


def stored(contents: bytes, *, kind: int = 0, crc: int | None = None) -> bytes:
    """A block with its trailer: compression type and masked CRC."""
    crc = masked(iscsi(contents + bytes([kind]))) if crc is None else crc
    return contents + bytes([kind]) + struct.pack("<I", crc)


def handle(offset: int, size: int) -> bytes:
    return varint(offset) + varint(size)


def footer(metaindex: bytes, index: bytes, *, magic: bytes = MAGIC) -> bytes:
    return (metaindex + index).ljust(40, b"\0")[:40] + magic


EMPTY_BLOCK = block([])


def table_of_blocks(
    blocks: Sequence[tuple[bytes, bytes]],
    *,
    handles: dict[int, bytes] | None = None,
    index_block: bytes | None = None,
    index_handle: bytes | None = None,
    metaindex: bytes = EMPTY_BLOCK,
    metaindex_handle: bytes | None = None,
    magic: bytes = MAGIC,
    kinds: dict[int, int] | None = None,
    crcs: dict[int, int] | None = None,
) -> bytes:
    """A whole table of ``(separator, block contents)``; ``handles`` overrides the index's values by block number."""
    out = bytearray()
    entries = []
    for number, (separator, contents) in enumerate(blocks):
        where = (handles or {}).get(number, handle(len(out), len(contents)))
        out += stored(contents, kind=(kinds or {}).get(number, 0), crc=(crcs or {}).get(number))
        entries.append(entry_bytes(separator, where))
    meta_at = handle(len(out), len(metaindex))
    out += stored(metaindex)
    points, position = [], 0
    for one in entries:
        points.append(position)
        position += len(one)
    index = block(entries, restarts=points or (0,)) if index_block is None else index_block
    index_at = handle(len(out), len(index))
    out += stored(index)
    return bytes(out) + footer(
        meta_at if metaindex_handle is None else metaindex_handle,
        index_at if index_handle is None else index_handle,
        magic=magic,
    )


def table(items: Sequence[tuple[bytes, bytes]], **overrides: object) -> bytes:
    """A table of one data block, every entry a whole key at its own restart point."""
    entries = [entry_bytes(key, value) for key, value in items]
    points, position = [], 0
    for one in entries:
        points.append(position)
        position += len(one)
    last = max((key for key, _ in items), default=b"")
    contents = block(entries, restarts=points or (0,))
    return table_of_blocks([(last + b"\xff", contents)], **overrides)  # type: ignore[arg-type]


# ------------------------------------------------------------------------------------------------------------ bundles


def header(shards: int = 1, *, endianness: int = 0, version: bytes | None = None, extra: bytes = b"") -> bytes:
    """A BundleHeaderProto."""
    out = field(1, shards) if shards else b""
    out += field(2, endianness) if endianness else b""
    return out + field(3, field(1, 1) if version is None else version) + extra


def shape(*dims: int, unknown: bool = False) -> bytes:
    """A TensorShapeProto."""
    return b"".join(field(2, field(1, dim)) for dim in dims) + (field(3, 1) if unknown else b"")


def extents(*pairs: tuple[int, int] | None) -> bytes:
    """A TensorSliceProto; None is a whole dimension."""
    parts = []
    for pair in pairs:
        body = b"" if pair is None else (field(1, pair[0]) if pair[0] else b"") + field(2, pair[1])
        parts.append(field(1, body))
    return b"".join(parts)


def entry(
    data: bytes,
    *dims: int,
    dtype: int = 1,
    offset: int = 0,
    size: int | None = None,
    shard: int = 0,
    crc: int | None = None,
    slices: Sequence[bytes] = (),
    shape_bytes: bytes | None = None,
    extra: bytes = b"",
) -> bytes:
    """A BundleEntryProto for ``data`` at ``offset``."""
    out = field(1, dtype) + field(2, shape(*dims) if shape_bytes is None else shape_bytes)
    out += field(3, shard) if shard else b""
    out += field(4, offset) if offset else b""
    size = len(data) if size is None else size
    out += field(5, size) if size else b""
    if not slices:
        out += fixed32(6, masked(iscsi(data)) if crc is None else crc)
    for one in slices:
        out += field(7, one)
    return out + extra


def sliced(*dims: int, slices: Sequence[bytes], dtype: int = 1) -> bytes:
    """The full entry of a partitioned tensor: no data of its own."""
    return field(1, dtype) + field(2, shape(*dims)) + b"".join(field(7, one) for one in slices)


def ordered_uint(value: int) -> bytes:
    raw = value.to_bytes((value.bit_length() + 7) // 8, "big")
    return bytes([len(raw)]) + raw


def ordered_int(value: int) -> bytes:
    magnitude = value if value >= 0 else ~value
    size = next(n for n in range(1, 11) if magnitude < 1 << (7 * n - 1) or n == 10)
    raw = int.from_bytes(value.to_bytes(size + 2, "big", signed=True), "big") & ((1 << 8 * size) - 1)
    mask = sum(1 << (8 * size - 1 - bit) for bit in range(size))
    return (raw ^ mask).to_bytes(size, "big")


def slice_key(name: bytes, *pairs: tuple[int, int] | None) -> bytes:
    """The table key of one piece of a partitioned tensor."""
    escaped = name.replace(b"\xff", b"\xff\x00").replace(b"\x00", b"\x00\xff") if b"\xff" not in name else None
    if escaped is None:
        escaped = b"".join({0: b"\x00\xff", 255: b"\xff\x00"}.get(byte, bytes([byte])) for byte in name)
    out = ordered_uint(0) + escaped + b"\x00\x01" + ordered_uint(len(pairs))
    for pair in pairs:
        start, length = pair or (0, -1)
        out += ordered_int(start) + ordered_int(length)
    return out


def bundle(
    items: Sequence[tuple[bytes, bytes]], *shards: bytes, head: bytes | None = None, prefix: str = "ckpt"
) -> dict[str, bytes]:
    """The files of a bundle: entries by key, and its data files' bytes."""
    count = max(1, len(shards))
    files = {f"{prefix}.index": table([(b"", header(count) if head is None else head), *items])}
    for number, data in enumerate(shards):
        files[f"{prefix}.data-{number:05d}-of-{count:05d}"] = data
    return files


def floats(*values: float) -> bytes:
    return struct.pack(f"<{len(values)}f", *values)


def strings(*values: bytes, length_crc: int | None = None, lengths: Sequence[bytes] | None = None) -> tuple[bytes, int]:
    """The stored form of a string tensor and its masked CRC (formats 2.7)."""
    words = b"".join(struct.pack("<I", len(value)) for value in values)
    crc = iscsi(words)
    check = struct.pack("<I", masked(crc) if length_crc is None else length_crc)
    prefix = b"".join(varint(len(value)) for value in values) if lengths is None else b"".join(lengths)
    body = b"".join(values)
    return prefix + check + body, masked(iscsi(body, iscsi(check, crc)))


def variants(*values: bytes, length: int | None = None) -> tuple[bytes, int]:
    """The stored form of a variant tensor and its masked CRC (formats 2.8)."""
    out, crc = b"", 0
    for value in values:
        size = len(value) if length is None else length
        crc = iscsi(value, iscsi(struct.pack("<Q", size & (1 << 64) - 1), crc))
        check = struct.pack("<I", masked(crc))
        crc = iscsi(check, crc)
        out += varint(size) + value + check
    return out, masked(crc)


def snappy_copies(length: int, claimed: int | None = None) -> bytes:
    """A raw Snappy block that expands one zero byte to ``length`` of them, as fast as the format can."""
    out = bytearray(varint(length if claimed is None else claimed)) + b"\x00\x00"
    left = length - 1
    while left > 0:
        step = min(64, left)
        out += bytes([(step - 1) << 2 | 2, 1, 0])
        left -= step
    return bytes(out)
