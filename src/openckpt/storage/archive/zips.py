"""Zip files: stored members are windows on the file's bytes, compressed ones are unpacked to memory when first used."""

from __future__ import annotations

import stat
import struct
from bisect import bisect_right
from weakref import WeakValueDictionary

from openckpt.errors import CorruptionError, UnsupportedError, Where
from openckpt.findings import Progress
from openckpt.limits import MIB, Limits, growth_of
from openckpt.storage.archive.names import decode_zip_name, harmless_path
from openckpt.storage.archive.sources import Blob, UnpackedSource, WindowSource
from openckpt.storage.archive.store import ArchiveStore, Listing, Member, make_listing
from openckpt.storage.archive.streams import make_engine, run_engine
from openckpt.storage.archive.zipheaders import (
    LOCAL,
    LOCAL_SIZE,
    ZipEntry,
    find_extra,
    iter_entries,
    read_directory,
)
from openckpt.storage.locks import ForkLock
from openckpt.storage.reading import ByteSource, Kind

_STORED = 0
_CODECS = {8: "deflate", 12: "bz2", 14: "lzma"}
_NAMES = {
    1: "shrink",
    6: "implode",
    9: "Deflate64",
    93: "Zstandard",
    95: "xz",
    96: "JPEG",
    98: "PPMd",
    99: "AES encryption",
}
_STEP = 256 << 10


class ZipStore(ArchiveStore):
    """A zip file as a `Store`."""

    format = "zip"

    def __init__(self, source: ByteSource, limits: Limits, progress: Progress | None = None) -> None:
        super().__init__(source, limits, progress)
        self._entries: list[ZipEntry] = []
        self._starts: list[int] = []  # offsets of all local headers, sorted; then that of the directory
        self._alive: WeakValueDictionary[int, Blob] = WeakValueDictionary()
        self._locks: dict[int, ForkLock] = {}

    def _list(self) -> Listing:
        directory = read_directory(self._source)
        entries = list(iter_entries(self._source, directory, self._limits))
        self._entries = entries
        self._starts = [*sorted(entry.offset for entry in entries), directory.offset]
        self._check_overlap(entries)
        return make_listing(self._member(entry, key) for key, entry in enumerate(entries))

    def _check_overlap(self, entries: list[ZipEntry]) -> None:
        # Members that share bytes are how 40 MB of zip unpack to petabytes; no tool writes them in earnest.
        before: ZipEntry | None = None
        for entry in sorted(entries, key=lambda one: one.offset):
            if before is not None and before.least_end > entry.offset:
                raise CorruptionError(
                    "archive.overlap",
                    Where(self._source.path, offset=entry.offset),
                    f"the members {self._name(before)!r} and {self._name(entry)!r} share bytes",
                )
            before = entry

    def _name(self, entry: ZipEntry) -> str:
        return decode_zip_name(entry.name, utf8=entry.utf8)

    def _member(self, entry: ZipEntry, key: int) -> Member:
        name = self._name(entry)
        path, odd = harmless_path(name, backslash_separates=True)
        kind: Kind = "dir" if name.endswith(("/", "\\")) else "file"
        what = ""
        link = stat.S_ISLNK(entry.mode)
        if link:
            kind, what = "other", "a symbolic link"
        elif stat.S_IFMT(entry.mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
            kind, what = "other", "a device, FIFO or socket"
        size = 0 if kind == "dir" else entry.size
        return Member(path, size, entry.offset, kind, what, link, odd, mtime_ns=entry.mtime_ns, key=key)

    def _open(self, member: Member) -> ByteSource:
        entry = self._entries[member.key]
        path = self.display(member.path)
        if entry.encrypted:
            raise UnsupportedError("archive.encrypted", path, "this member is encrypted")
        if entry.method != _STORED and entry.method not in _CODECS:
            name = _NAMES.get(entry.method, "an unknown method")
            raise UnsupportedError(
                "archive.compression", path, f"this member is compressed with method {entry.method}, {name}"
            )
        start = self._data_start(entry, path)
        if entry.method == _STORED:
            return WindowSource(self, path, start, entry.size, nesting=self._nesting, crc32=entry.crc)
        self._limits.check("archive_bytes", entry.size, path, "the unpacked size of this member")
        growth = growth_of(entry.size, entry.packed_size)
        self._limits.check("archive_ratio", growth, path, "the growth of the compressed data")
        lock = self._locks.setdefault(member.key, ForkLock())  # members unpack side by side, one of them once

        def load() -> Blob:
            with lock:
                blob = self._alive.get(member.key)
                if blob is None:
                    blob = self._alive[member.key] = Blob(self._unpack(entry, start, path))
            return blob

        return UnpackedSource(self._source, path, entry.size, load, nesting=self._nesting, crc32=entry.crc)

    def _data_start(self, entry: ZipEntry, path: str) -> int:
        """Return where the member's data begins, after holding its local header against the directory."""
        header = self._source.read_at(entry.offset, LOCAL_SIZE)
        flags, method = struct.unpack("<2H", header[6:10])
        crc, packed, size, names, extras = struct.unpack("<3L2H", header[14:30])
        start: int = entry.offset + LOCAL_SIZE + names + extras
        after = self._starts[bisect_right(self._starts, entry.offset)]
        problem = None
        if header[:4] != LOCAL:
            problem = ("local header", "none")
        elif start + entry.packed_size > after:
            raise CorruptionError(
                "archive.overlap", Where(path, offset=start), "this member reaches into the one behind it"
            )
        elif names != len(entry.name) or self._source.read_at(entry.offset + LOCAL_SIZE, names) != entry.name:
            problem = ("name", "another")
        elif method != entry.method or (flags ^ entry.flags) & 1:
            problem = (f"method {entry.method}", f"{method}")
        elif not flags & 8:  # with bit 3 the sizes follow the data and the local header has none
            extra = self._source.read_at(start - extras, extras)
            wide = find_extra(extra, 1) or b""
            stated = _local_sizes(size, packed, wide)
            if stated != (entry.size, entry.packed_size):
                problem = (f"sizes {entry.size} and {entry.packed_size}", f"{stated[0]} and {stated[1]}")
            elif crc != entry.crc:
                problem = (f"crc {entry.crc:#010x}", f"{crc:#010x}")
        if problem is None and entry.method == _STORED and entry.size != entry.packed_size:
            problem = (f"{entry.size} stored bytes", f"{entry.packed_size}")
        if problem is not None:
            raise CorruptionError(
                "archive.header-mismatch",
                Where(path, offset=entry.offset),
                "the zip's directory and the member's own header disagree",
                expected=problem[0],
                found=problem[1],
            )
        return start

    def _unpack(self, entry: ZipEntry, start: int, path: str) -> bytearray:
        import zlib

        codec = _CODECS[entry.method]
        engine = make_engine(codec, self._limits)
        at, end = start, start + entry.packed_size
        feed = b""
        if codec == "lzma":
            # Two version bytes and the length of the properties; liblzma wants them with the size behind them instead.
            head = self._source.read_at(at, 9) if entry.packed_size >= 9 else b""
            if head[2:4] != b"\x05\0":
                raise CorruptionError("archive.damaged", Where(path, offset=at), "its LZMA header is not one")
            feed = head[4:] + b"\xff" * 8
            at += 9
        data = bytearray()
        crc = 0
        while not engine.eof:
            if engine.needs_input and not feed:
                feed = self._source.read_at(at, min(_STEP, end - at))
                at += len(feed)
                if not feed:
                    break
            given, feed = feed, b""
            # One byte more than stated, to see data that goes on; never more than a step at once.
            piece = run_engine(
                engine, given, min(entry.size + 1 - len(data), MIB), Where(path, offset=at), self._limits
            )
            crc = zlib.crc32(piece, crc)
            data += piece
            if len(data) > entry.size:
                break
        finished = engine.eof or codec == "lzma"  # LZMA in zip may end with its packed bytes instead of a marker
        if len(data) != entry.size or not finished:
            raise CorruptionError(
                "archive.size-mismatch",
                Where(path),
                "the member does not unpack to the size that the directory states",
                expected=f"{entry.size} bytes",
                found=f"more than {entry.size}" if len(data) > entry.size else f"{len(data)} bytes",
            )
        if crc != entry.crc:
            raise CorruptionError(
                "archive.crc-mismatch",
                Where(path),
                "the checksum over the unpacked data does not match",
                expected=f"{entry.crc:#010x}",
                found=f"{crc:#010x}",
            )
        return data


def _local_sizes(size: int, packed: int, wide: bytes) -> tuple[int, int]:
    """Return size and packed size of a local header, the full ones taken from its zip64 field."""
    at = 0
    if size == 0xFFFFFFFF and len(wide) >= 8:
        size, at = int.from_bytes(wide[:8], "little"), 8
    if packed == 0xFFFFFFFF and len(wide) >= at + 8:
        packed = int.from_bytes(wide[at : at + 8], "little")
    return size, packed
