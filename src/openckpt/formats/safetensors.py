"""safetensors: one file, or many with an index in JSON (formats 8.4, docs/format/safetensors.md).

    FILE.safetensors                 header (`openckpt.formats.safetensors_header`), then the tensors
    NAME.safetensors.index.json      {"weight_map": {"name": "FILE.safetensors", ...}}

Everything is checked once when the file is opened; after that no read can leave it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from openckpt.errors import CheckpointError, CorruptionError, FormatError, Where
from openckpt.formats.flat import FlatReader, Run, check_unchanged
from openckpt.formats.safetensors_header import OUR_METADATA, SafetensorsHeader, read_header
from openckpt.formats.shardmap import MISSING, parse_map, plain_name, read_index
from openckpt.formats.spec import TensorSpec
from openckpt.limits import DEFAULT_LIMITS, Limits

if TYPE_CHECKING:
    from openckpt.findings import Finding, Progress
    from openckpt.storage.reading import ByteSource, Store


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
        self._rewritten: list[str] = []
        """files that were shards of a checkpoint before another program wrote them again"""

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
