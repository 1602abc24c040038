"""npz: a zip of .npy members, one per key (formats 8.5, docs/format/npz.md). Nothing is ever unpickled.

    weights.npz = zip( "dense/kernel.npy" = header (`openckpt.formats.npy`) + elements, ... )

Keys may contain "/". Members of ``numpy.savez`` are stored as they are and read in place; those of ``savez_compressed`` are
unpacked to memory. The order of keys is that of the members in the zip. What openckpt wrote may hold one member more,
``openckpt.json``, with the keys, types and shapes that NumPy cannot spell (`openckpt.formats.npz_encoder`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from math import prod
from typing import TYPE_CHECKING

from openckpt.errors import CheckpointError, CorruptionError, UnsafeError, UnsupportedError, Where
from openckpt.formats.carried import BLOBS, Carried, check_carried, is_same_bytes, parse_carried, value_of
from openckpt.formats.flat import FlatReader, Run, check_rewritten, check_unchanged
from openckpt.formats.members import check_member, crc_mismatch, stated_crc
from openckpt.formats.npy import NpyHeader, header_length, parse_header
from openckpt.formats.spec import Extent, TensorSpec
from openckpt.formats.strictjson import parse_json
from openckpt.limits import DEFAULT_LIMITS, OBJECT_BYTES, Limits, growth_of, no_memory
from openckpt.storage.reading import read_whole

if TYPE_CHECKING:
    from openckpt.findings import Finding, Progress
    from openckpt.formats.spec import Array
    from openckpt.storage.archive import ArchiveStore
    from openckpt.storage.reading import ByteSource, Store

SUFFIX = ".npy"
SIDE_NAME = "openckpt.json"
SIDE_VERSION = 1
_PEEK = 4096  # NumPy pads headers so that the data starts at a multiple of 64; nearly all are 128 bytes


class NpzReader(FlatReader):
    """One .npz file; see `openckpt.formats.spec.TensorReader`."""

    format = "npz"

    def __init__(self, archive: ArchiveStore, source: ByteSource, limits: Limits) -> None:
        super().__init__(source.path, (), limits)
        self._archive = archive
        self._file = source
        self._headers: dict[str, NpyHeader] = {}
        self._members: dict[str, ByteSource] = {}
        self._problems: dict[str, CheckpointError] = {}
        self._others: list[str] = []
        self._carried: dict[str, Carried] = {}  # key -> what openckpt.json says of it

    @property
    def files(self) -> tuple[str, ...]:
        """The file."""
        return (self._file.path,)

    def _add(self, key: str, member: ByteSource, carried: Carried | None) -> None:
        where = Where(member.path, key)
        self._members[key] = member
        try:
            header = _read_header(member, where, self._limits)
            _check_size(header, member, where)
            if carried is not None:
                self._carry(key, header, carried, where)
                return
            if header.sort in ("bytes", "text"):
                self._check_strings(header, where)
        except CheckpointError as error:
            self._problems[key] = error
            self._specs[key] = TensorSpec("unknown-damaged", None, None)
            return
        finally:
            member.close()  # lets go of the unpacked bytes of a compressed member
        self._headers[key] = header
        self._specs[key] = TensorSpec(header.dtype, header.shape, header.nbytes if _has_size(header) else None)
        if header.sort == "number":
            self._place(key, header, member)

    def _add_missing(self, name: str, carried: Carried) -> None:
        """Take in a tensor of which ``openckpt.json`` speaks and whose member is not there."""
        if carried.key not in self._specs:
            where = Where(self.path, carried.key)
            message = f"{SIDE_NAME} speaks of a member {name + SUFFIX!r} that is not there"
            self._problems[carried.key] = CorruptionError("npz.side-entry", where, message)
            self._specs[carried.key] = TensorSpec("unknown-damaged", None, None)

    def _carry(self, key: str, header: NpyHeader, carried: Carried, where: Where) -> None:
        """Take in a tensor of which ``openckpt.json`` says what it is."""
        stored = header.dtype if header.sort in ("number", "bytes", "text") else None
        if stored == "string":  # the member says it all; only the name is another
            self._check_strings(header, where)
        check_carried(carried, stored, header.itemsize, header.shape, where, "npz.side-entry", self._limits)
        self._headers[key] = header
        self._specs[key] = TensorSpec(carried.dtype, carried.shape, header.nbytes)
        if stored == "string":
            return
        if is_same_bytes(carried.dtype):
            self._place(key, header, self._members[key])
        else:
            self._sources.append(self._members[key])
            self._carried[key] = carried

    def _place(self, key: str, header: NpyHeader, member: ByteSource) -> None:
        """Note where the elements of a tensor lie that are its bytes."""
        self._runs[key] = Run(len(self._sources), header.data_offset, header.nbytes, header.big_endian, header.fortran)
        self._sources.append(member)

    def _check_strings(self, header: NpyHeader, where: Where) -> None:
        """Bound what strings cost as Python objects: an element may be one packed bit in the file, or nothing at all."""
        growth = growth_of(prod(header.shape) * OBJECT_BYTES, self._file.size)
        self._limits.check("archive_ratio", growth, where, "the memory for these strings, in multiples of the file,")

    def _done_with(self, key: str) -> None:
        self._members[key].close()

    def _refusal(self, key: str, spec: TensorSpec) -> CheckpointError:
        problem = self._problems.get(key)
        if problem is not None:
            return problem
        where, sort = Where(self.path, key), self._headers[key].sort
        if sort == "object":
            return UnsafeError("npz.pickled", where, "the array holds pickled Python objects, which are never read")
        if sort == "void":
            return UnsupportedError(
                "npz.void", where, f"the elements are {spec.dtype.removeprefix('unknown-')}: raw bytes without a type"
            )
        return super()._refusal(key, spec)

    def _read_other(self, key: str, spec: TensorSpec, verify: bool) -> Array:
        import numpy as np

        header, carried = self._headers.get(key), self._carried.get(key)
        if header is None or (header.sort not in ("bytes", "text") and carried is None):
            raise self._refusal(key, spec)
        member, where = self._members[key], Where(self._members[key].path, key)
        data = member.read_at(header.data_offset, header.nbytes)
        check_rewritten(member)
        if verify:
            self._verify_run(key, memoryview(data))
        try:
            if carried is not None:
                raw: Array = np.frombuffer(data, f"V{header.itemsize}").reshape(
                    header.shape, order="F" if header.fortran else "C"
                )
                self._done_with(key)
                return value_of(np.array(raw, order="C"), carried, where, "npz.side-entry")
            values = _bytes_of(data, header) if header.sort == "bytes" else _text_of(data, header, where)
            self._done_with(key)
            flat: Array = np.empty(len(values), object)
            flat[:] = values
            return np.array(flat.reshape(header.shape, order="F" if header.fortran else "C"), order="C")
        except MemoryError:
            raise no_memory(where, "so many strings") from None

    def _prove(self, places: Iterable[int]) -> None:
        """Nothing: every member is one tensor, and its checksum is computed over the bytes that were read anyway."""

    _hashes_runs = True

    def _verify_run(self, key: str, raw: memoryview) -> None:
        from zlib import crc32

        from openckpt.storage.archive.sources import UnpackedSource

        member = self._members[key]
        stated = stated_crc(member)
        if stated is None or isinstance(member, UnpackedSource):  # unpacking has checked it already
            return
        computed = crc32(raw, crc32(member.read_at(0, self._headers[key].data_offset)))
        if computed != stated:
            raise crc_mismatch(Where(member.path, key), stated, computed)

    def locate(self, key: str) -> tuple[Extent, ...]:
        """Return where the bytes of a stored member lie inside that member; () for what must be decoded."""
        return tuple(place._replace(shard=0) for place in super().locate(key))

    def validate(self, *, data: bool = True, progress: Progress | None = None) -> Iterator[Finding]:
        """Yield what is wrong with the zip and its members; with ``data`` every member's CRC-32 is checked."""
        from openckpt.findings import finding_of, make_finding

        yield from self._archive.validate()
        for path in self._others:
            where = Where(self._archive.display(path))
            yield make_finding("npz.other-member", where, "the archive also holds a file that is no array")
        yield from self._unreadable()
        if not data:
            return
        for number, (key, member) in enumerate(self._members.items()):
            if progress is not None:
                progress("checking members", number, len(self._members))
            try:
                if self._specs[key].dtype in BLOBS:
                    self.read(key)  # text must be decoded to be proved
                else:
                    check_member(member)
            except CheckpointError as error:
                if key not in self._problems:
                    yield finding_of(error)
            finally:
                member.close()

    def close(self) -> None:
        """Release the file; views stay valid."""
        super().close()
        self._file.close()


def open_npz(store: Store, path: str, *, limits: Limits = DEFAULT_LIMITS) -> NpzReader:
    """Open a .npz file.

    A member that is damaged or no array is listed as ``unknown-damaged`` and raises when it is read, so that the others
    stay readable.

    Raises:
        CorruptionError: not a zip file (``npz.not-an-archive``), or one whose directory is damaged.
        LimitError: more members than the limits allow.
    """
    from openckpt.storage.archive import archive_kind, open_archive

    source = store.open(path)
    try:
        if archive_kind(source) != "zip":
            raise CorruptionError("npz.not-an-archive", source.path, "this is not a zip archive, and so no .npz file")
        archive = open_archive(source, limits=limits)
        reader = NpzReader(archive, source, limits)
        members = archive.listing().members
        side = _read_side(archive, limits) if SIDE_NAME in members else {}
        for member in members.values():
            if member.kind == "dir":
                continue
            if not member.path.endswith(SUFFIX):
                if member.path != SIDE_NAME:
                    reader._others.append(member.path)
                continue
            name = member.path[: -len(SUFFIX)]
            carried = side.get(name)
            key = name if carried is None else carried.key
            if key in reader._specs:
                where = Where(reader.path, key)
                raise CorruptionError("npz.side-entry", where, f"{SIDE_NAME} makes two members one key")
            try:
                opened = archive.open(member.path)
            except CheckpointError as error:
                reader._problems[key] = error
                reader._specs[key] = TensorSpec("unknown-damaged", None, None)
                continue
            reader._add(key, opened, carried)
        for name, said in side.items():
            if name + SUFFIX not in members:
                reader._add_missing(name, said)
        check_unchanged(source)
    except BaseException:
        source.close()
        raise
    return reader


def _read_side(archive: ArchiveStore, limits: Limits) -> dict[str, Carried]:
    """Return what ``openckpt.json`` says: member without its suffix -> key, type and shape."""
    where = Where(archive.display(SIDE_NAME))
    text = read_whole(archive, SIDE_NAME, limits=limits, cap="json_bytes", what="the size of this member")
    document = parse_json(text, where, code="npz.side-entry", surrogates=True)
    tensors = document.get("tensors") if isinstance(document, dict) else None
    if not isinstance(document, dict) or not isinstance(tensors, dict):
        raise CorruptionError("npz.side-entry", where, f"{SIDE_NAME} has no object called tensors")
    if document.get("version") != SIDE_VERSION:
        raise UnsupportedError(
            "npz.side-version",
            where,
            f"an unknown version of {SIDE_NAME}",
            expected=SIDE_VERSION,
            found=repr(document.get("version"))[:40],
        )
    return {name: parse_carried(said, where._replace(key=name), "npz.side-entry") for name, said in tensors.items()}


def _read_header(member: ByteSource, where: Where, limits: Limits) -> NpyHeader:
    start = member.read_at(0, min(_PEEK, member.size))
    offset, length = header_length(start, where)
    if offset + length > member.size:
        raise CorruptionError(
            "npz.header",
            where,
            "the header is longer than the member",
            expected=f"at most {member.size - offset}",
            found=length,
        )
    text = start[offset : offset + length] if offset + length <= len(start) else member.read_at(offset, length)
    return parse_header(text, offset + length, where, limits)


def _check_size(header: NpyHeader, member: ByteSource, where: Where) -> None:
    if not _has_size(header):
        return
    found = member.size - header.data_offset
    if header.nbytes != found:
        raise CorruptionError(
            "npz.size-mismatch",
            where,
            f"{header.dtype} of shape {list(header.shape)} does not fit its bytes",
            expected=f"{header.nbytes} bytes",
            found=f"{found} bytes",
        )


def _has_size(header: NpyHeader) -> bool:
    return header.sort != "object" and header.dtype != "unknown-structured"


def _bytes_of(data: bytes, header: NpyHeader) -> list[bytes]:
    size = header.itemsize
    if size == 0:
        return [b""] * prod(header.shape)
    return [data[at : at + size].rstrip(b"\0") for at in range(0, len(data), size)]


def _text_of(data: bytes, header: NpyHeader, where: Where) -> list[bytes]:
    size, codec = header.itemsize, "utf-32-be" if header.big_endian else "utf-32-le"
    if size == 0:
        return [b""] * prod(header.shape)
    try:
        return [
            data[at : at + size].decode(codec, "surrogatepass").rstrip("\0").encode("utf-8", "surrogatepass")
            for at in range(0, len(data), size)
        ]
    except UnicodeError:
        raise CorruptionError("npz.text", where, "a text element holds a number that is no character") from None
