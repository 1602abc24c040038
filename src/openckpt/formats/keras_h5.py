"""Keras weights in HDF5: legacy ``.h5``, Keras 3 ``.weights.h5`` single and sharded (formats 8.2, 8.3).

Keys are full dataset paths: ``model_weights/dense/dense/kernel:0``, ``layers/dense/vars/0``. Their order is the one that the
attributes of the file state, and by path where they state none. What libhdf5 is asked, and what it is not, stands in
`openckpt.formats.hdf5`; the page is docs/format/hdf5-and-keras.md.

    name.weights.json            {"metadata": {"total_size": ...}, "weight_map": {"/layers/dense/vars": "name_00000.weights.h5"}}
    name_00000.weights.h5 ...    each an HDF5 file with a part of the groups
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from openckpt.errors import CheckpointError, Where
from openckpt.formats.carried import is_same_bytes
from openckpt.formats.dtypes import BY_NAME
from openckpt.formats.flat import FlatReader, Run, check_rewritten, check_unchanged
from openckpt.formats.hdf5.child import HDF5Child
from openckpt.formats.hdf5.data import check_data, read_dataset
from openckpt.formats.hdf5.report import Dataset, HDF5Report, KerasAttributes, Problem
from openckpt.formats.hdf5.walk import inspect_hdf5, natural
from openckpt.formats.shardmap import MISSING, parse_map, plain_name, read_index
from openckpt.formats.spec import TensorSpec
from openckpt.limits import DEFAULT_LIMITS, Limits

if TYPE_CHECKING:
    from openckpt.findings import Finding, Progress
    from openckpt.formats.spec import Array
    from openckpt.storage.reading import ByteSource, Store

__all__ = [
    "HDF5Child",
    "HDF5Reader",
    "HDF5Report",
    "inspect_hdf5",
    "open_hdf5",
    "parse_shard_map",
]


class HDF5Reader(FlatReader):
    """One HDF5 file, or the shards of one set of Keras 3 weights; see `openckpt.formats.spec.TensorReader`."""

    format = "hdf5"

    def __init__(
        self,
        path: str,
        sources: Sequence[ByteSource],
        reports: Sequence[HDF5Report],
        *,
        limits: Limits,
        child: HDF5Child | None,
    ) -> None:
        super().__init__(path, sources, limits)
        self._reports = tuple(reports)
        self._child = child
        self._index: tuple[str, ...] = ()
        self._problems: list[Problem] = []
        self._datasets: dict[str, tuple[ByteSource | None, Dataset]] = {}
        found = [(shard, dataset) for shard, report in enumerate(self._reports) for dataset in report.datasets]
        if len(self._reports) > 1:
            found.sort(key=lambda item: natural(item[1].key))
        for shard, dataset in found:
            self._add(shard, dataset)

    def _add(self, shard: int, dataset: Dataset) -> None:
        key, carried = dataset.key, dataset.carried
        if key in self._datasets:
            message = f"the dataset is also in {self._sources[shard].path}; the first one is read"
            self._problems.append(Problem("hdf5.duplicate-key", key, message))
            return
        self._datasets[key] = (self._sources[shard], dataset)
        dtype, shape = (dataset.dtype, dataset.shape) if carried is None else (carried.dtype, carried.shape)
        self._specs[key] = TensorSpec(dtype, shape, dataset.nbytes)
        plain = dataset.storage == "contiguous" and dataset.refusal is None and dataset.text is None
        if plain and dtype in BY_NAME and is_same_bytes(dtype):
            self._runs[key] = Run(shard, dataset.offset or 0, dataset.nbytes or 0, dataset.big_endian)

    def add_problem(self, problem: Problem) -> None:
        """Take in something wrong around the weights, for `validate` to report."""
        self._problems.append(problem)

    def _add_missing(self, name: str, groups: Sequence[str]) -> None:
        """Take in a shard that is not there: one finding, and one key that cannot be read for each group it should hold."""
        message = f"{name}, which the index names, is not there"
        self._problems.append(Problem("hdf5.shard-missing", None, message))
        for group in groups:
            if group in self._datasets:
                continue
            refusal = Problem("hdf5.shard-missing", group, message)
            self._datasets[group] = (None, Dataset(group, MISSING, None, None, "none", refusal=refusal))
            self._specs[group] = TensorSpec(MISSING, None, None)

    @property
    def files(self) -> tuple[str, ...]:
        """The files this checkpoint consists of, the index first."""
        return self._index + super().files

    @property
    def attributes(self) -> KerasAttributes:
        """What Keras wrote about the file (about the first one, when there are shards)."""
        return self._reports[0].attributes if self._reports else KerasAttributes()

    def _refusal(self, key: str, spec: TensorSpec) -> CheckpointError:
        source, dataset = self._datasets[key]
        if dataset.refusal is not None:
            return dataset.refusal.error(self.path if source is None else source.path)
        return super()._refusal(key, spec)

    def _read_other(self, key: str, spec: TensorSpec, verify: bool) -> Array:
        source, dataset = self._datasets[key]
        if source is None or dataset.refusal is not None:
            raise self._refusal(key, spec)
        value = read_dataset(source, dataset)
        check_rewritten(source)
        return value

    def validate(self, *, data: bool = True, progress: Progress | None = None) -> Iterator[Finding]:
        """Yield links, lying sizes, unknown types and filters; with ``data`` every chunk is read and its checksum checked.

        Datasets that lie in one piece have no checksum; that their bytes are there was checked by the open.
        """
        for problem in self._problems:
            yield problem.finding(self.path)
        if data:
            yield from self._damaged_members()
        for source, report in zip(self._sources, self._reports, strict=True):
            yield from report.findings
            if not data:
                continue
            if self._child is not None:
                known = set(report.problems)
                checked = self._child.inspect(source, limits=self._limits, data=True)
                yield from (p.finding(source.path) for p in checked.problems if p not in known)
            else:
                for problem in check_data(source, report, progress):
                    yield problem.finding(source.path)


def open_hdf5(
    store: Store, path: str, *, limits: Limits = DEFAULT_LIMITS, child: HDF5Child | None = None
) -> HDF5Reader:
    """Open an HDF5 file, or the ``.weights.json`` of sharded Keras 3 weights.

    Args:
        store: where the file lies.
        path: the file.
        limits: caps against hostile input.
        child: lets libhdf5 look at the file in that process, so that its crash is an error and not the end of this one
            (the doctor does); must outlive the reader.

    Raises:
        CorruptionError: not HDF5, cut off or damaged; the code says which.
        UnsafeError: the index of shards names a file outside its directory (``hdf5.unsafe-shard-name``).
        LimitError: more objects or deeper nesting than the limits allow.
    """
    if path.endswith(".json"):
        return _open_sharded(store, path, limits, child)
    source = store.open(path)
    return open_hdf5_source(source, limits=limits, child=child)


def open_hdf5_source(
    source: ByteSource, *, limits: Limits = DEFAULT_LIMITS, child: HDF5Child | None = None
) -> HDF5Reader:
    """Open an HDF5 file whose bytes are at hand; the reader owns ``source`` from here on, also when this raises."""
    try:
        report = inspect_source(source, limits=limits, child=child)
        return HDF5Reader(source.path, (source,), (report,), limits=limits, child=child)
    except BaseException:
        source.close()
        raise


def inspect_source(source: ByteSource, *, limits: Limits, child: HDF5Child | None) -> HDF5Report:
    """Return the report of a file that could be opened; raises the fatal problem of any other."""
    report = inspect_hdf5(source, limits=limits) if child is None else child.inspect(source, limits=limits)
    check_unchanged(source)
    if report.fatal is not None:
        raise report.fatal.error(source.path)
    return report


def parse_shard_map(data: bytes, path: str) -> dict[str, tuple[str, ...]]:
    """Return ``{group path: file names}`` of a ``.weights.json``; file names are checked to be plain names.

    Raises:
        CorruptionError: not an index as Keras writes it (``hdf5.index``).
        UnsafeError: a file name that leads out of the directory (``hdf5.unsafe-shard-name``).
    """
    shards: dict[str, tuple[str, ...]] = {}
    for group, value in parse_map(data, path, code="hdf5.index").items():
        names = value if isinstance(value, list) else [value]
        where = Where(path, group)
        shards[group] = tuple(
            plain_name(name, where, code="hdf5.index", unsafe_code="hdf5.unsafe-shard-name") for name in names
        )
    return shards


def _open_sharded(store: Store, path: str, limits: Limits, child: HDF5Child | None) -> HDF5Reader:
    shown = store.display(path)
    shard_map = parse_shard_map(read_index(store, path, limits), shown)
    directory, _ = store.split(path)
    groups: dict[str, list[str]] = {}
    for group, names in shard_map.items():
        for name in names:
            groups.setdefault(name, []).append(group.strip("/"))
    limits.check("shards", len(groups), shown, "the number of files")
    paths = {name: store.join(directory, name) for name in groups}
    store.expect(list(paths.values()))
    sources: list[ByteSource] = []
    reports: list[HDF5Report] = []
    missing: list[str] = []
    try:
        for name, shard in paths.items():
            try:
                sources.append(store.open(shard))
            except (FileNotFoundError, IsADirectoryError):
                missing.append(name)
                continue
            reports.append(inspect_source(sources[-1], limits=limits, child=child))
        reader = HDF5Reader(shown, sources, reports, limits=limits, child=child)
    except BaseException:
        for source in sources:
            source.close()
        raise
    reader._index = (shown,)
    for name in missing:
        reader._add_missing(name, groups[name])
    return reader
