"""What can be told about the tensors of a dual shard from the safetensors file alone, as findings."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from openckpt.errors import CheckpointError, Where
from openckpt.findings import Finding, Lost, Progress, finding_of
from openckpt.formats.dtypes import BY_NAME
from openckpt.formats.extents import Request, check_requests
from openckpt.formats.flat import checked_shape, mismatch
from openckpt.formats.slicing import full_region, plan_copies, resolve_extents
from openckpt.formats.spec import GRAPH_KEY

if TYPE_CHECKING:
    from openckpt.formats.dual.reader import DualReader


def validate_dual(reader: DualReader, *, data: bool, progress: Progress | None) -> Iterator[Finding]:
    """Yield the partitioned tensors that are not whole, with ``data`` every checksum that fails, and a broken graph."""
    parameters = sum(spec.size for _, spec in reader.items())
    bad: set[str] = set()

    def cost(error: CheckpointError, key: str) -> Finding:
        bad.add(key)
        return finding_of(error, severity="error").with_lost(Lost((key,), reader.spec(key).size, parameters))

    for key, spec in reader.items():
        if not reader.is_decoded(key):
            continue
        where, shape = Where(reader.path, key), spec.shape or ()
        try:
            checked_shape(spec, where)
            pieces = reader.slices(key)
            if not pieces:
                continue
            plan_copies(full_region(shape), [resolve_extents(piece, shape, where) for piece in pieces], where)
        except CheckpointError as error:
            yield cost(error, key)
    if data:
        for key, fault in _check_data(reader, bad, progress):
            yield cost(fault, key)
    yield from _check_graph(reader, bad)


def _check_data(reader: DualReader, bad: set[str], progress: Progress | None) -> Iterator[tuple[str, CheckpointError]]:
    """Yield every tensor whose bytes do not have their checksum."""
    requests: list[Request] = []
    opaque: list[str] = []
    for key, spec in reader.items():
        dtype = BY_NAME.get(spec.dtype)
        if dtype is None:
            continue  # of a missing file, or of a plain safetensors file beside: it was reported
        if not dtype.is_numeric:
            opaque.append(key)
            continue
        for place in reader.locate(key):
            if place.crc is not None:  # dtype and shape do not matter for a checksum, and numpy is not needed for it
                source = reader.source(place.shard)
                requests.append(Request(key, source, place.offset, place.nbytes, None, (), place.crc))  # type: ignore[arg-type]
    for request, result in check_requests(requests, f"checking {reader.path}", progress=progress):
        yield request.key, result if isinstance(result, CheckpointError) else mismatch(request, result)
    for key in opaque:
        if key in bad:
            continue
        try:
            reader.read(key)
        except CheckpointError as error:
            yield key, error


def _check_graph(reader: DualReader, bad: set[str]) -> Iterator[Finding]:
    """Check that the object graph parses. What it names may lie in other shards, of which this file says nothing."""
    if GRAPH_KEY in reader and GRAPH_KEY not in bad:
        try:
            reader.graph()
        except CheckpointError as error:
            yield finding_of(error)
