"""Binary files: tables, HDF5, safetensors and NumPy by their signatures; pickles, graphs and others by name; damage."""

from __future__ import annotations

import re

from openckpt.formats.detect import Detected, pickle_of, read_tail
from openckpt.formats.detect_archive import is_translated, text_damaged
from openckpt.formats.hdf5.superblock import SIGNATURE
from openckpt.formats.sstable.format import FOOTER_BYTES, MAGIC_BYTES
from openckpt.formats.wire import parse_varint
from openckpt.limits import DEFAULT_LIMITS
from openckpt.storage.reading import ByteSource

_USER_BLOCK = 1 << 20  # the longest of the blocks of 512, 1024, 2048 ... bytes behind which an HDF5 file may begin
_TORCH = bytes.fromhex("80028a0a6cfc9c46f9206aa850192e")  # the pickled number 0x1950a86a20f9469cfc6c and STOP
_NODE_OP = re.compile(rb"[A-Za-z_][A-Za-z0-9_>.]*")
_META_GRAPH_TAGS = (b"\x0a", b"\x12", b"\x1a", b"\x22", b"\x2a", b"\x32", b"\x3a")  # fields 1 to 7, in any order
_V2_START = re.compile(rb"\x00\x00[\x02-\x7f](?:\x08[\x01-\xff]\x01?|\x1a)")

# What a signature at an offset says. Files of other trades turn up under checkpoint names often enough to be told.
_OTHERS: tuple[tuple[int, bytes, str], ...] = (
    (4, b"TFL3", "a TensorFlow Lite model"),
    (0, b"GGUF", "a GGUF model"),
    (0, b"\x28\xb5\x2f\xfd", "a Zstandard-compressed file"),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
    (0, b"Rar!\x1a\x07", "a RAR archive"),
    (0, b"PAR1", "a Parquet file"),
    (0, b"%PDF-", "a PDF document"),
    (0, b"\x89PNG\r\n\x1a\n", "a PNG picture"),
    (0, b"\xff\xd8\xff", "a JPEG picture"),
    (0, b"\x7fELF", "an executable"),
    (0, b"SQLite format 3\0", "an SQLite database"),
)

# HDF5, gzip, npy and table signatures after a text transfer (LF to CRLF, CRLF to LF), and after a program decoded the
# bytes as UTF-8 with replacement, as ASCII with "?", or took them for Latin-1 and wrote UTF-8.
_BROKEN_HEADS = (
    (b"\x89HDF\r\r\n\x1a\r\n", "an HDF5 file"),
    (b"\x89HDF\n\x1a\n", "an HDF5 file"),
    (b"\xef\xbf\xbdHDF", "an HDF5 file"),
    (b"\xc2\x89HDF", "an HDF5 file"),
    (b"?HDF\r\n", "an HDF5 file"),
    (b"\x1f\xef\xbf\xbd\x08", "a gzip file"),
    (b"\x1f\xc2\x8b\x08", "a gzip file"),
    (b"\xef\xbf\xbdNUMPY", "a NumPy file"),
    (b"\xc2\x93NUMPY", "a NumPy file"),
)
_BROKEN_TAILS = (
    MAGIC_BYTES.decode("utf-8", "replace").encode(),
    MAGIC_BYTES.decode("latin-1").encode(),
    MAGIC_BYTES.decode("ascii", "replace").replace("\ufffd", "?").encode(),
)


def is_table(source: ByteSource) -> bool:
    """Return whether the file ends like a table (formats 1.1)."""
    size = source.size
    return size >= FOOTER_BYTES and source.read_at(size - 8, 8) == MAGIC_BYTES


def detect_binary(source: ByteSource, head: bytes) -> Detected:
    """Return what a file is that is neither text nor an archive."""
    if is_table(source):
        return _table(source)
    return _checkpoint(source, head) or _named(source, head) or _damaged(source, head) or _rest(source, head)


def _table(source: ByteSource) -> Detected:
    footer = source.read_at(source.size - FOOTER_BYTES, 40)
    values, at = [], 0
    for _ in range(4):
        value, at = _varint(footer, at)
        values.append(value)
    # The index block lies directly before the footer; where it does not, bytes came or went between.
    grown = source.size - FOOTER_BYTES - (values[2] + values[3] + 5)
    if grown and is_translated(source, grown=grown > 0):
        return text_damaged("a table (index or V1 checkpoint)")
    return Detected("table", "a table: the index of a V2 checkpoint, or a V1 checkpoint")


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """Return ``(value, next position)``, value -1 where there is no varint."""
    try:
        return parse_varint(data, at)
    except ValueError:
        return -1, len(data)


def _checkpoint(source: ByteSource, head: bytes) -> Detected | None:
    size = source.size
    at = 0
    while at + 8 <= size and at <= _USER_BLOCK:
        if (head[at : at + 8] if at + 8 <= len(head) else source.read_at(at, 8)) == SIGNATURE:
            behind = f" behind a user block of {at} bytes" if at else ""
            return Detected("hdf5", f"an HDF5 file{behind}")
        at = at * 2 or 512
    length = int.from_bytes(head[:8], "little")
    if size > 9 and 2 <= length <= DEFAULT_LIMITS.header_bytes and head[8:10] in (b'{"', b"{}", b"{ ", b"{\n"):
        return Detected("safetensors", "a safetensors file")
    if head.startswith(b"\x93NUMPY"):
        return Detected("npy", "one NumPy array (.npy), which has no name", "detect.foreign")
    return None


def _named(source: ByteSource, head: bytes) -> Detected | None:
    if head.startswith(_TORCH):
        return Detected("torch-pickle", "an old PyTorch checkpoint (a pickle, never executed here)", "detect.torch")
    if head[0] == 0x80 and head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        return pickle_of(head)
    key = _msgpack_key(head)
    if key is not None:
        return Detected(
            "msgpack", f"a msgpack map whose first key is {key!r}; Flax writes its checkpoints so", "detect.msgpack"
        )
    if b"brain.Event:" in head[:64]:
        return Detected("tfevents", "a TensorBoard event file", "detect.foreign")
    graph = _graph(source, head)
    if graph is not None:
        return graph
    for offset, magic, words in _OTHERS:
        if head.startswith(magic, offset):
            return Detected("other", words, "detect.foreign")
    return None


def _msgpack_key(head: bytes) -> str | None:
    """Return the first key of a msgpack map with text keys, or None for anything else."""
    if 0x81 <= head[0] <= 0x8F:
        at = 1
    elif head[0] in (0xDE, 0xDF):
        at = 3 if head[0] == 0xDE else 5
    else:
        return None
    first = head[at : at + 1]
    if first == b"\xd9":
        length, at = head[at + 1] if at + 1 < len(head) else 0, at + 2
    elif first and 0xA1 <= first[0] <= 0xBF:
        length, at = first[0] - 0xA0, at + 1
    else:
        return None
    key = head[at : at + length]
    text = key.decode("ascii", "replace")
    return text if len(key) == length > 0 and text.isprintable() and text.isascii() else None


def _graph(source: ByteSource, head: bytes) -> Detected | None:
    """Recognise the three graph messages (formats 5): they are often taken for the checkpoint beside them."""
    size = source.size
    if head[:3] == b"\x08\x01\x12":
        length, at = _varint(head, 3)
        if 0 < length <= size - at and head[at : at + 1] in _META_GRAPH_TAGS:
            return Detected(
                "saved-model",
                "the graph of a SavedModel; its weights lie in variables/ beside it",
                "detect.graph",
                "pass the directory that holds it",
            )
    if head[:1] != b"\x0a":
        return None
    length, at = _varint(head, 1)
    if length < 0:
        return None
    inner = head[at : at + max(length, 0)]
    if inner[:1] == b"\x0a":
        name_length, name_at = _varint(inner, 1)
        op_at = name_at + name_length
        if 0 < name_length < len(inner) and inner[op_at : op_at + 1] == b"\x12":
            op_length, begin = _varint(inner, op_at + 1)
            if op_length > 0 and _NODE_OP.fullmatch(inner[begin : begin + op_length]):
                return Detected(
                    "graph", "a TensorFlow graph (GraphDef), frozen or not, without a checkpoint", "detect.graph"
                )
    # A MetaGraphDef: a few fields of lengths that fit, the meta info (with the writer's version or its op list) first.
    end = at + length
    if end < size and source.read_at(end, 1) == b"\x12" and (inner[:1] in (b"\x12", b"\x0a", b"\x22", b"\x2a")):
        return Detected(
            "meta-graph",
            "the meta graph of a TF1 checkpoint (.meta): the graph without the weights",
            "detect.graph",
            "pass the checkpoint itself: the same name without .meta",
        )
    return None


def _damaged(source: ByteSource, head: bytes) -> Detected | None:
    for magic, what in _BROKEN_HEADS:
        if head.startswith(magic):
            return text_damaged(what)
    tail = read_tail(source)
    if tail.endswith(_BROKEN_TAILS):
        return text_damaged("a table (index or V1 checkpoint)")
    at = tail.rfind(MAGIC_BYTES)
    if at >= FOOTER_BYTES - 8 or (at >= 0 and len(tail) < source.size):
        junk = len(tail) - at - len(MAGIC_BYTES)
        return Detected(
            "table-trailing-junk",
            f"a table with {junk} bytes behind its end, which begin with {tail[at + 8 : at + 24]!r}",
            "detect.trailing-junk",
        )
    if _V2_START.match(head) and len(head) > 16:
        return Detected("table-cut", "the beginning of a checkpoint index; its end is missing", "detect.table-cut")
    return None


def _rest(source: ByteSource, head: bytes) -> Detected:
    if not head.strip(b"\0") and _all_zero(source):
        return Detected(
            "zeros",
            "nothing but zero bytes where it was looked at: a data shard of zeros, or a file that was reserved and never written",
            "detect.zeros",
        )
    return Detected(
        "unknown",
        "binary data of no known signature (the data shard of a checkpoint looks like this)",
        "detect.unknown",
    )


def _all_zero(source: ByteSource) -> bool:
    if read_tail(source).strip(b"\0"):
        return False
    step = max(source.size // 16, 512)
    return all(not source.read_at(at, min(512, source.size - at)).strip(b"\0") for at in range(step, source.size, step))
