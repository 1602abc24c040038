"""safetensors: one file, or many with an index in JSON (formats 8.4, docs/format/safetensors.md).

    +--------+------------------------------------------------+---------------------------+
    | N: <u8 | N bytes of JSON, padded with spaces            | data                      |
    +--------+------------------------------------------------+---------------------------+
             {"name": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}, ...,
              "__metadata__": {"format": "pt"}}                  offsets count from here ^

Everything is checked once when the file is opened: the tensors tile the data exactly, every size agrees with dtype and
shape, and no name occurs twice. After that no read can leave the file.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

from openckpt.errors import CheckpointError, CorruptionError, FormatError, Where
from openckpt.formats.flat import FlatReader, Run, check_unchanged
from openckpt.formats.shardmap import MISSING, parse_map, plain_name, read_index
from openckpt.formats.spec import TensorSpec
from openckpt.formats.strictjson import Json, parse_json
from openckpt.limits import DEFAULT_LIMITS, Limits

if TYPE_CHECKING:
    from openckpt.findings import Finding, Progress
    from openckpt.formats.dual import DualShard
    from openckpt.storage.reading import ByteSource, Store

METADATA_KEY = "__metadata__"
OUR_METADATA = "openckpt"
"""the member of the metadata that a data shard of a checkpoint has (docs/format/dual.md)"""

_FIELDS = {"dtype", "shape", "data_offsets"}

# TensorFlow's name of each type (None: it has none, the tensor is listed and not read) and bits per element.
_DTYPES: dict[str, tuple[str | None, int]] = {
    "BOOL": ("bool", 8), "U8": ("uint8", 8), "I8": ("int8", 8), "U16": ("uint16", 16), "I16": ("int16", 16),
    "U32": ("uint32", 32), "I32": ("int32", 32), "U64": ("uint64", 64), "I64": ("int64", 64),
    "F16": ("float16", 16), "BF16": ("bfloat16", 16), "F32": ("float32", 32), "F64": ("float64", 64),
    "C64": ("complex64", 64), "F8_E4M3": ("float8_e4m3fn", 8), "F8_E5M2": ("float8_e5m2", 8),
    "F8_E4M3FNUZ": ("float8_e4m3fnuz", 8), "F8_E5M2FNUZ": ("float8_e5m2fnuz", 8),
    "F8_E8M0": (None, 8), "F6_E2M3": (None, 6), "F6_E3M2": (None, 6), "F4": (None, 4),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class SafetensorsHeader:
    """A checked header.

    Attributes:
        tensors: name -> (spec, first byte in the file), in header order.
        metadata: the string-to-string map of ``__metadata__``.
        data_start: offset of the first data byte.
        dual: what our own metadata says, where the file is a shard of a checkpoint; None for any other file.
    """

    tensors: Mapping[str, tuple[TensorSpec, int]]
    metadata: Mapping[str, str]
    data_start: int
    dual: DualShard | None = None


def parse_header(data: bytes, path: str, file_size: int, limits: Limits = DEFAULT_LIMITS) -> SafetensorsHeader:
    """Parse and check the JSON of a header (``data``, which starts at byte 8) against a file of ``file_size`` bytes.

    Raises:
        CorruptionError: any rule of formats 8.4 is broken.
        LimitError: a shape has more dimensions than ``limits.tensor_rank``.
        FormatError: our own metadata is damaged (codes of the area ``dual``).
    """
    start = 8 + len(data)
    if not data.startswith(b"{"):
        raise CorruptionError("safetensors.header-text", Where(path, offset=8), "the header does not start with '{'")
    document = parse_json(
        data, path, code="safetensors.header-text", duplicate_code="safetensors.duplicate-name", offset=8
    )
    if not isinstance(document, dict):  # it starts with "{", so this cannot happen; the check is for the types
        raise CorruptionError("safetensors.header-text", path, "the header is not a JSON object")
    metadata = _metadata(document.pop(METADATA_KEY, None), path)
    tensors: dict[str, tuple[TensorSpec, int]] = {}
    for name, entry in document.items():
        spec, begin = _parse_entry(entry, path, name, limits)
        tensors[name] = (spec, start + begin)
    _check_tiling(tensors, path, start, file_size)
    dual = None
    if OUR_METADATA in metadata:
        from openckpt.formats.dual import parse_dual

        dual = parse_dual(data, tensors, metadata, path, limits)
    return SafetensorsHeader(tensors, metadata, start, dual)


def _metadata(value: Json, path: str) -> dict[str, str]:
    if value is None:
        return {}
    where = Where(path, METADATA_KEY)
    if not isinstance(value, dict):
        raise CorruptionError("safetensors.metadata", where, "the metadata is not a JSON object")
    texts: dict[str, str] = {}
    for name, text in value.items():
        if not isinstance(text, str):
            raise CorruptionError("safetensors.metadata", where, f"the metadata entry {name!r} is not a string")
        texts[name] = text
    return texts


def _parse_entry(entry: Json, path: str, key: str, limits: Limits) -> tuple[TensorSpec, int]:
    if not isinstance(entry, dict) or entry.keys() != _FIELDS:
        raise _bad_entry(path, key, "an entry is an object with exactly dtype, shape and data_offsets")
    name, shape, offsets = entry["dtype"], _sizes(entry["shape"]), _sizes(entry["data_offsets"])
    if not isinstance(name, str):
        raise _bad_entry(path, key, "the dtype is not a string")
    if shape is None:
        raise _bad_entry(path, key, "the shape is not a list of sizes")
    if offsets is None or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise _bad_entry(path, key, "data_offsets is not [begin, end] with begin <= end")
    if len(shape) > limits.tensor_rank:
        limits.check("tensor_rank", len(shape), Where(path, key), "the rank")
    begin, end = offsets
    mapped, bits = _DTYPES.get(name, (None, 0))
    if bits and prod(shape) * bits != (end - begin) * 8:
        raise CorruptionError(
            "safetensors.size-mismatch",
            Where(path, key),
            f"{name} of shape {list(shape)} does not fit its bytes",
            expected=f"{-(-prod(shape) * bits // 8)} bytes",
            found=f"{end - begin} bytes",
        )
    return TensorSpec(mapped or f"unknown-{name}", shape, end - begin), begin


def _bad_entry(path: str, key: str, message: str) -> CorruptionError:
    return CorruptionError("safetensors.header-entry", Where(path, key), message)


def _sizes(value: Json) -> tuple[int, ...] | None:
    if type(value) is not list:
        return None
    for size in value:
        # 2**63: the reference reader's integers end at 64 bits; it also keeps products from growing without bound
        if type(size) is not int or not 0 <= size < 1 << 63:
            return None
    return tuple(value)  # type: ignore[arg-type]  # integers all


def _check_tiling(tensors: Mapping[str, tuple[TensorSpec, int]], path: str, start: int, file_size: int) -> None:
    """Hold every rule of formats 8.4 about offsets: from the first data byte to the end of the file, no hole, no overlap."""
    at = start
    for name, (spec, begin) in sorted(tensors.items(), key=lambda item: (item[1][1], item[1][0].nbytes or 0)):
        if begin != at:
            what = "overlaps the tensor before it" if begin < at else "leaves a hole before it"
            raise CorruptionError(
                "safetensors.offsets", Where(path, name, begin), f"the tensor {what}", expected=at, found=begin
            )
        at = begin + (spec.nbytes or 0)
        if at > file_size:
            raise CorruptionError(
                "safetensors.truncated",
                Where(path, name, begin),
                "the tensor ends beyond the end of the file",
                expected=f"at least {at} bytes in the file",
                found=f"{file_size} bytes",
            )
    if at != file_size:
        raise CorruptionError(
            "safetensors.trailing-bytes",
            Where(path, offset=at),
            f"{file_size - at} bytes follow the last tensor",
            expected=f"{at} bytes in the file",
            found=f"{file_size} bytes",
        )


def read_header(source: ByteSource, limits: Limits = DEFAULT_LIMITS) -> SafetensorsHeader:
    """Read and check the header of an open file.

    Raises:
        CorruptionError: not a safetensors file, or a damaged one.
        LimitError: the header is above ``limits.header_bytes``.
    """
    if source.size < 8:
        raise CorruptionError(
            "safetensors.too-short", source.path, "the file is too short for a header", found=f"{source.size} bytes"
        )
    length = int.from_bytes(source.read_at(0, 8), "little")
    if length > source.size - 8:
        raise CorruptionError(
            "safetensors.header-past-end",
            Where(source.path, offset=0),
            "the header is longer than the file",
            expected=f"at most {source.size - 8} bytes",
            found=f"{length} bytes",
        )
    limits.check("header_bytes", length, Where(source.path, offset=0), "the header size")
    return parse_header(source.read_at(8, length), source.path, source.size, limits)


class SafetensorsReader(FlatReader):
    """One safetensors checkpoint, in one file or in the files that an index names; see `TensorReader`."""

    format = "safetensors"

    def __init__(self, path: str, sources: tuple[ByteSource, ...], limits: Limits = DEFAULT_LIMITS) -> None:
        super().__init__(path, sources, limits)
        self.metadata: dict[str, str] = {}
        """``__metadata__`` of the file (of the first file that has one, when there are many)"""
        self._index: tuple[str, ...] = ()
        self._problems: dict[str, CheckpointError] = {}
        self._unlisted: list[Where] = []
        self._rewritten: list[
            str
        ] = []  # files that were shards of a checkpoint before another program wrote them again

    @property
    def files(self) -> tuple[str, ...]:
        """The files this checkpoint consists of, the index first."""
        return self._index + super().files

    def _add(self, key: str, header: SafetensorsHeader, source: int) -> None:
        spec, offset = header.tensors[key]
        self._specs[key] = spec
        if not spec.dtype.startswith("unknown-"):
            self._runs[key] = Run(source, offset, spec.nbytes or 0)

    def _settle(self, headers: Iterable[tuple[int, SafetensorsHeader]]) -> None:
        """Finish the opening, after the last tensor was added; ``headers`` come with the number of their source."""
        for source, header in headers:
            if header.dual is None and OUR_METADATA in header.metadata:
                self._rewritten.append(self._sources[source].path)

    def _refusal(self, key: str, spec: TensorSpec) -> CheckpointError:
        return self._problems.get(key) or super()._refusal(key, spec)

    def validate(self, *, data: bool = True, progress: Progress | None = None) -> Iterator[Finding]:
        """Yield the missing files and tensors of a sharded checkpoint; the structure was checked by the open itself.

        The format has no checksum of tensor data; with ``data`` a member of a zip is held against the checksum of the zip.
        """
        from openckpt.findings import make_finding

        if data:
            yield from self._damaged_members()
        seen: set[tuple[str, str]] = set()
        for finding in self._unreadable():
            # a damaged or missing file is one fault, however many tensors it held
            place = (finding.code, finding.where.key or finding.where.path)
            if place not in seen:
                seen.add(place)
                yield finding
        for path in self._rewritten:
            yield make_finding("dual.rewritten", path, "the metadata of a checkpoint's data file no longer counts")
        for where in self._unlisted:
            yield make_finding("safetensors.unlisted-key", where, "the index does not name this tensor")


def open_safetensors(store: Store, path: str, *, limits: Limits = DEFAULT_LIMITS) -> SafetensorsReader:
    """Open a ``.safetensors`` file or a ``.safetensors.index.json`` with its files.

    Raises:
        CorruptionError: a rule of formats 8.4 is broken; the code says which.
        LimitError: a header above the limits.
        UnsafeError: the index names a file outside its directory (``safetensors.unsafe-shard-name``).
    """
    if path.endswith(".json"):
        return _open_sharded(store, path, limits)
    source = store.open(path)
    try:
        header = read_header(source, limits)
        check_unchanged(source)
    except BaseException:
        source.close()
        raise
    reader = _make_reader(store.display(path), (source,), (header,), limits)
    reader.metadata = dict(header.metadata)
    for key in header.tensors:
        reader._add(key, header, 0)
    reader._settle([(0, header)])
    return reader


def _make_reader(
    path: str, sources: tuple[ByteSource, ...], headers: Sequence[SafetensorsHeader], limits: Limits
) -> SafetensorsReader:
    if all(header.dual is None for header in headers):
        return SafetensorsReader(path, sources, limits)
    from openckpt.formats.dual.reader import DualReader

    return DualReader(path, sources, limits)


def parse_weight_map(data: bytes, path: str) -> dict[str, str]:
    """Return ``{tensor name: file name}`` of an index; file names are checked to be plain names.

    Raises:
        CorruptionError: not an index (``safetensors.header-text``, ``safetensors.index-entry``).
        UnsafeError: a file name that leads out of the directory (``safetensors.unsafe-shard-name``).
    """
    code = "safetensors.index-entry"
    weight_map = parse_map(
        data, path, code=code, text_code="safetensors.header-text", duplicate_code="safetensors.duplicate-name"
    )
    return {
        key: plain_name(name, Where(path, key), code=code, unsafe_code="safetensors.unsafe-shard-name")
        for key, name in weight_map.items()
    }


def _open_sharded(store: Store, path: str, limits: Limits) -> SafetensorsReader:
    shown = store.display(path)
    weight_map = parse_weight_map(read_index(store, path, limits), shown)
    directory, _ = store.split(path)
    names = list(dict.fromkeys(weight_map.values()))
    limits.check("shards", len(names), shown, "the number of files")
    paths = [store.join(directory, name) for name in names]
    store.expect(paths)
    opened: dict[str, tuple[int, SafetensorsHeader]] = {}
    errors: dict[str, CheckpointError] = {}
    sources: list[ByteSource] = []
    try:
        for name, shard in zip(names, paths, strict=True):
            try:
                source = store.open(shard)
            except (FileNotFoundError, IsADirectoryError):
                errors[name] = CorruptionError(
                    "safetensors.shard-missing", store.display(shard), f"{name}, which the index names, is not there"
                )
                continue
            sources.append(source)
            try:
                opened[name] = (len(sources) - 1, read_header(source, limits))
            except FormatError as error:
                errors[name] = error
        for source in sources:
            check_unchanged(source)
        reader = _make_reader(shown, tuple(sources), [header for _, header in opened.values()], limits)
    except BaseException:
        for source in sources:
            source.close()
        raise
    reader._index = (shown,)
    for key, name in weight_map.items():
        if name not in opened:
            reader._specs[key] = TensorSpec(MISSING, None, None)
            reader._problems[key] = errors[name]
            continue
        shard_id, header = opened[name]
        if key not in header.tensors:
            reader._specs[key] = TensorSpec(MISSING, None, None)
            place = Where(sources[shard_id].path, key)
            reader._problems[key] = CorruptionError(
                "safetensors.shard-key-missing", place, f"{name} does not hold this tensor"
            )
            continue
        reader._add(key, header, shard_id)
    for shard_id, header in opened.values():
        reader.metadata = reader.metadata or dict(header.metadata)
        reader._unlisted += [Where(sources[shard_id].path, key) for key in header.tensors if key not in weight_map]
    reader._settle(opened.values())
    return reader
