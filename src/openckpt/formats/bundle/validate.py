"""Everything that can be told about one V2 checkpoint from its own files (formats 2.13), as findings.

Static checks first - they read only the index and the sizes of the shards - then, if asked, every tensor's bytes against its
CRC. A fault of a whole shard is one finding with all tensors that it costs, not one per tensor.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from typing import TYPE_CHECKING, NamedTuple

from openckpt.errors import CheckpointError, CorruptionError, Where
from openckpt.findings import Finding, Lost, Progress, finding_of, make_finding
from openckpt.formats.bundle.entry import BundleEntry, match_head, parse_entry, shared_head
from openckpt.formats.bundle.header import Header
from openckpt.formats.bundle.regions import Piece, check_regions
from openckpt.formats.bundle.splitting import REASSEMBLED_BY_TENSORFLOW
from openckpt.formats.dtypes import dtype_of_enum
from openckpt.formats.flat import checked_shape
from openckpt.formats.slicekeys import encode_slice_key, is_slice_key, parse_slice_key
from openckpt.formats.slicing import full_region, plan_copies, resolve_extents
from openckpt.formats.spec import GRAPH_KEY
from openckpt.limits import Limits

if TYPE_CHECKING:
    from openckpt.formats.bundle.reader import BundleReader
    from openckpt.formats.extents import Request
    from openckpt.storage.reading import ByteSource

_MANY_ENTRIES = 10_000  # from here on the walk may last a second, and reports after every block


class _Head(NamedTuple):
    """What dtype and shape alone decide about an entry that was found sound."""

    enum: int
    shape: tuple[int, ...] | None
    nbytes: int


class _Survey:
    """What one walk over the index has gathered."""

    def __init__(self) -> None:
        self.parameters = 0
        self.by_shard: dict[int, list[Piece]] = {}
        self.entries: dict[bytes, BundleEntry] = {}
        self.elements: dict[str, int] = {}

    def lost(self, keys: list[str]) -> Lost:
        """Return what it costs to lose these tensors."""
        unique = tuple(dict.fromkeys(keys))
        return Lost(unique, sum(self.elements.get(key, 0) for key in unique), self.parameters)


def validate_bundle(
    reader: BundleReader,
    index: ByteSource,
    limits: Limits,
    *,
    data: bool,
    progress: Progress | None,
) -> Iterator[Finding]:
    """Yield the findings of one open checkpoint; see `BundleReader.validate`."""
    survey = _Survey()
    yield from reader.table.validate()
    yield from _walk(reader, index, limits, survey, progress)
    yield from _check_slices(reader, index, survey)
    yield from _check_header(reader.header, reader, index)
    bad: set[str] = set()
    for finding in _check_shards(reader, survey, limits):
        if finding.lost is not None:
            bad.update(finding.lost.tensors)
        yield finding
    if data:
        yield from _check_data(reader, survey, bad, progress)
    yield from _check_graph(reader, survey, bad)


def _display(key: bytes) -> str:
    return key.decode("utf-8", "surrogateescape")


def _walk(
    reader: BundleReader, index: ByteSource, limits: Limits, survey: _Survey, progress: Progress | None
) -> Iterator[Finding]:
    """Parse every entry that can be reached; a broken block or entry is a finding and the walk goes on."""
    sound: dict[bytes, _Head] = {}
    for block in reader.table.salvage_blocks():
        if isinstance(block, Finding):
            yield block
            continue
        if progress is not None and len(survey.entries) >= _MANY_ENTRIES:
            progress(f"entries of {index.path}", len(survey.entries), None)
        for raw, value in zip(*block, strict=True):
            if not raw:
                continue
            known = match_head(value, sound)
            if known is not None:
                head, place = known
                survey.entries[raw] = BundleEntry(head.enum, head.shape, *place)
                continue
            key = _display(raw)
            odd = False
            try:
                entry = parse_entry(value, Where(index.path, key), limits)
                survey.entries[raw] = entry
                for finding in _check_entry(entry, key, index):
                    odd = True
                    yield finding
            except CheckpointError as error:
                yield finding_of(error)
                continue
            dtype = dtype_of_enum(entry.enum)
            prefix = shared_head(value, entry)
            if prefix and not odd and dtype is not None and dtype.is_numeric:
                # What dtype and shape alone decide about an entry is decided for all that share them.
                sound[prefix] = _Head(entry.enum, entry.shape, entry.size)
    pieces = _pieces(survey)
    for raw, entry in survey.entries.items():
        owner = _display(pieces.get(raw, raw))
        if raw not in pieces:
            count = prod(entry.shape or ())
            survey.parameters += count
            survey.elements[owner] = count
        if not entry.slices:
            survey.by_shard.setdefault(entry.shard, []).append(Piece(entry.offset, entry.size, owner, entry, raw))


def _pieces(survey: _Survey) -> dict[bytes, bytes]:
    """Return ``{slice key: name}`` of every slice key that its tensor lists."""
    found = {}
    for raw, entry in survey.entries.items():
        for piece in entry.slices:
            found[encode_slice_key(raw, piece)] = raw
    return found


def _check_entry(entry: BundleEntry, key: str, index: ByteSource) -> Iterator[Finding]:
    where = Where(index.path, key)
    dtype = dtype_of_enum(entry.enum)
    if dtype is None:
        yield make_finding("spec.unknown-dtype", where, f"data type number {entry.enum} is not known")
        return
    if dtype.name == "resource":
        yield make_finding("bundle.resource", where, "a resource handle has no stored value")
        return
    if entry.shape is None:
        yield make_finding("bundle.bad-shape", where, "a stored tensor without a known rank")
        return
    count = prod(entry.shape)
    if dtype.is_numeric and not entry.slices and entry.size != count * dtype.itemsize:
        yield make_finding(
            "bundle.size-mismatch",
            where,
            "the index entry contradicts itself",
            expected=f"{count * dtype.itemsize} bytes for {dtype.name} {list(entry.shape)}",
            found=f"size {entry.size}",
        )
    checked_shape(entry.spec(), where)
    if entry.slices and dtype.name not in REASSEMBLED_BY_TENSORFLOW:
        yield make_finding(
            "bundle.slice-unreadable",
            where,
            f"{len(entry.slices)} slices of {dtype.name}: stock TensorFlow cannot read them whole",
        )


def _check_slices(reader: BundleReader, index: ByteSource, survey: _Survey) -> Iterator[Finding]:
    """Check that listed pieces exist, cover their tensor once, and that no piece is left over."""
    listed = _pieces(survey)
    for raw, entry in survey.entries.items():
        where = Where(index.path, _display(raw))
        if is_slice_key(raw) and raw not in listed:
            try:
                owner = _display(parse_slice_key(raw)[0])
            except CorruptionError:
                continue  # a tensor whose name happens to start with a zero byte
            yield make_finding("bundle.slice-orphan", Where(index.path, owner), "a slice that its tensor does not list")
        if not entry.slices:
            continue
        missing = [piece for piece in entry.slices if encode_slice_key(raw, piece) not in survey.entries]
        if missing:
            lost = survey.lost([_display(raw)])
            message = f"{len(missing)} of {len(entry.slices)} slices are not in the index, the first is {missing[0]}"
            yield make_finding("bundle.slice-missing", where, message, lost=lost)
        try:
            shape = entry.shape or ()
            plan_copies(full_region(shape), [resolve_extents(piece, shape, where) for piece in entry.slices], where)
            absent = set(missing)  # a hostile entry lists tens of thousands
            stored = [piece for piece in entry.slices if piece not in absent]
            reader.shards.check_apart(
                _display(raw), [reader.index.piece(_display(raw), entry, piece) for piece in stored]
            )
        except CheckpointError as error:
            yield finding_of(error, severity="error").with_lost(survey.lost([_display(raw)]))
        except OSError:
            continue  # a data file that the system refuses: `_check_shards` says so, and what it costs


def _check_header(header: Header, reader: BundleReader, index: ByteSource) -> Iterator[Finding]:
    if reader.shards.count != header.num_shards:
        yield make_finding(
            "bundle.shard-count",
            index.path,
            "the header counts other data files than there are",
            expected=f"{header.num_shards} by the header",
            found=f"a complete set of {reader.shards.count}",
        )


def _check_shards(reader: BundleReader, survey: _Survey, limits: Limits) -> Iterator[Finding]:
    """Compare the places that entries claim with the files that are there."""
    shards = reader.shards
    superseded: frozenset[int] = frozenset()
    for shard in sorted(set(survey.by_shard) | set(shards.missing())):
        pieces = sorted(survey.by_shard.get(shard, ()), key=lambda piece: (piece.offset, piece.size))
        keys = [piece.key for piece in pieces]
        try:
            source = shards.get(shard, keys[0] if keys else "")
        except CheckpointError as error:
            finding = finding_of(error)
            where = Where(error.where.path, None if error.code == "bundle.shard-missing" else error.where.key)
            message = f"{error.message}: {len(set(keys))} tensors lie in it" if keys else error.message
            yield make_finding(
                finding.code, where, message, found=finding.found, expected=finding.expected, lost=survey.lost(keys)
            )
            continue
        except OSError as error:
            yield make_finding(
                "storage.unreadable",
                shards.display(shard),
                f"the system refused: {error.strerror or error}",
                lost=survey.lost(keys),
            )
            continue
        beyond = [piece for piece in pieces if piece.offset + piece.size > source.size]
        if beyond:
            need = max(piece.offset + piece.size for piece in beyond)
            yield make_finding(
                "bundle.data-truncated",
                Where(source.path, beyond[0].key, beyond[0].offset),
                f"the data file is too short: {len({piece.key for piece in beyond})} tensors reach past its end",
                expected=f"at least {need} bytes",
                found=f"{source.size} bytes",
                lost=survey.lost([piece.key for piece in beyond]),
            )
        has_header = not pieces or pieces[0].offset > 0
        if has_header and not shard:
            from openckpt.formats.dual.comparing import find_superseded

            superseded = find_superseded(source, [piece.offset for piece in pieces if piece.size], limits)
        is_superseded = shard in superseded
        regions = check_regions(source, pieces)
        yield from _of_earlier_steps(source, pieces, regions) if is_superseded else regions
        if has_header:
            from openckpt.formats.dual.comparing import compare_with_index

            entries = {piece.stored_key: piece.entry for piece in pieces}
            yield from compare_with_index(source, entries, limits, superseded=is_superseded)


def _of_earlier_steps(source: ByteSource, pieces: list[Piece], regions: Iterator[Finding]) -> Iterator[Finding]:
    """Say how much of a linked data file this checkpoint does not use, instead of what lies between its tensors."""
    used = sum(piece.size for piece in pieces)
    message = f"a link to the data file of an earlier step: {used} of its {source.size} bytes are this checkpoint's"
    yield make_finding("dual.superseded", source.path, message)
    for finding in regions:
        if finding.code != "bundle.unused-bytes":
            yield finding


def _check_data(reader: BundleReader, survey: _Survey, bad: set[str], progress: Progress | None) -> Iterator[Finding]:
    """Check every CRC; tensors that are known to be lost already are skipped."""
    from openckpt.formats.extents import Request, check_requests

    requests: list[Request] = []
    opaque: list[str] = []
    for shard, pieces in survey.by_shard.items():
        for piece in pieces:
            dtype = dtype_of_enum(piece.entry.enum)
            if dtype is None or piece.entry.shape is None or dtype.name == "resource" or piece.key in bad:
                continue
            if not dtype.is_numeric:
                opaque.append(piece.key)
                continue
            try:
                source = reader.shards.get(shard, piece.key)
            except (CheckpointError, OSError):
                continue
            if piece.offset + piece.size <= source.size:
                # dtype and shape do not matter for a checksum, and numpy is not needed for it
                requests.append(Request(piece.key, source, piece.offset, piece.size, None, (), piece.entry.crc))  # type: ignore[arg-type]
    for request, result in check_requests(requests, f"checking {reader.path}", progress=progress):
        error = result if isinstance(result, CheckpointError) else reader.data.mismatch(request, result)
        bad.add(request.key)
        yield finding_of(error).with_lost(survey.lost([request.key]))
    swapped = []
    for key in dict.fromkeys(opaque):
        try:
            reader.read(key)
        except CheckpointError as error:
            bad.add(key)
            if error.code == "bundle.crc-mismatch" and reader.data.reads_in_other_order(key):
                swapped.append(key)
                continue
            yield finding_of(error).with_lost(survey.lost([key]))
    if swapped:
        stated = "big-endian" if reader.header.big_endian else "little-endian"
        yield make_finding(
            "bundle.wrong-endian",
            Where(reader.files[0], swapped[0]),
            f"the header says {stated}, but {len(swapped)} string tensors only read in the other byte order",
            lost=survey.lost(list(survey.elements)),
        )


def _check_graph(reader: BundleReader, survey: _Survey, bad: set[str]) -> Iterator[Finding]:
    """Check that the object graph parses and that every key it names is there."""
    if GRAPH_KEY.encode() not in survey.entries or GRAPH_KEY in bad:
        return
    try:
        graph = reader.graph()
    except CheckpointError as error:
        # A quick look does not judge data, and a full one has already reported it.
        if error.code not in ("bundle.crc-mismatch", "bundle.shard-missing", "bundle.data-truncated"):
            yield finding_of(error)
        return
    if graph is None:
        return
    from openckpt.formats.objectgraph import validate_graph

    yield from validate_graph(graph, [_display(raw) for raw in survey.entries], reader.path)


__all__ = ["validate_bundle"]
