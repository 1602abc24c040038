"""``.keras``: a zip, or its unzipped directory, of configuration and weights (formats 8.1, docs/format/hdf5-and-keras.md).

    metadata.json       {"keras_version": "3.8.0", "date_saved": "2025-01-30@16:49:02"}
    config.json         how to build the model again; openckpt reads names out of it and builds nothing
    model.weights.h5    the weights, an HDF5 file as Keras 3 writes it; read in place inside the zip
    assets/...          vocabularies and the like

Keras 2.12 to 2.15 write the same archive. Its weights member can also be ``model.weights.npz``: pickled objects, which
Keras itself cannot load back; refused by name.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import TYPE_CHECKING

from openckpt.errors import CheckpointError, CorruptionError, FormatError, UnsafeError, Where
from openckpt.formats.hdf5.attributes import parse_config
from openckpt.formats.hdf5.child import HDF5Child
from openckpt.formats.hdf5.report import HDF5Report, Problem, problem_of
from openckpt.formats.keras_h5 import HDF5Reader, inspect_source
from openckpt.formats.members import check_member
from openckpt.formats.strictjson import Json, parse_json
from openckpt.limits import DEFAULT_LIMITS, Limits
from openckpt.storage.reading import read_whole

if TYPE_CHECKING:
    from openckpt.findings import Finding, Progress
    from openckpt.storage.archive import ArchiveStore
    from openckpt.storage.reading import ByteSource, Store

METADATA, CONFIG, WEIGHTS, NPZ_WEIGHTS = "metadata.json", "config.json", "model.weights.h5", "model.weights.npz"


class _Box:
    """The files of a ``.keras``, in a zip or in a directory."""

    def __init__(self, store: Store, directory: str, archive: ArchiveStore | None, source: ByteSource | None) -> None:
        self.store = store
        self.directory = directory
        self.archive = archive
        self._source = source

    def join(self, name: str) -> str:
        return self.store.join(self.directory, name) if self.directory else name

    def open(self, name: str) -> ByteSource:
        return self.store.open(self.join(name))

    def has(self, name: str) -> bool:
        stat = self.store.stat(self.join(name))
        return stat is not None and stat.kind == "file"

    def members(self) -> dict[str, int]:
        if self.archive is not None:
            return {m.path: m.size for m in self.archive.listing().members.values() if m.kind == "file"}
        return {stat.name: stat.size for stat in self.store.scan(self.directory) if stat.kind == "file"}

    def files(self, path: str) -> tuple[str, ...]:
        if self.archive is not None:
            return (path,)
        names = [name for name in (WEIGHTS, CONFIG, METADATA) if self.has(name)]
        return tuple(self.store.display(self.join(name)) for name in names)

    def close(self) -> None:
        if self._source is not None:
            self._source.close()


class KerasReader(HDF5Reader):
    """One ``.keras`` archive; see `openckpt.formats.spec.TensorReader`. Keys are dataset paths in model.weights.h5.

    Attributes:
        keras_version: the Keras that wrote it, e.g. "3.8.0"; None where metadata.json does not say.
        date_saved: as written, e.g. "2025-01-30@16:49:02".
        class_name: class of the model, e.g. "Sequential".
        members: the names of the files in the archive, sizes in bytes.
    """

    format = "keras-v3"

    def __init__(
        self, path: str, box: _Box, weights: ByteSource, report: HDF5Report, *, limits: Limits, child: HDF5Child | None
    ) -> None:
        super().__init__(path, (weights,), (report,), limits=limits, child=child)
        self._box = box
        self.keras_version: str | None = None
        self.date_saved: str | None = None
        self.class_name: str | None = None
        self.members = box.members()

    @property
    def files(self) -> tuple[str, ...]:
        """The archive, or the files of the unzipped directory."""
        return self._box.files(self.path)

    def validate(self, *, data: bool = True, progress: Progress | None = None) -> Iterator[Finding]:
        """Yield what is wrong with the zip, its JSON and its weights; with ``data`` every member's CRC-32 is checked."""
        from openckpt.findings import finding_of

        if self._box.archive is not None:
            yield from self._box.archive.validate()
        if data:
            for name in self.members:
                if name == WEIGHTS:
                    continue  # the reader of the weights checks its own
                try:
                    with closing(self._box.open(name)) as source:
                        check_member(source)
                except CheckpointError as error:
                    yield finding_of(error)
        yield from super().validate(data=data, progress=progress)

    def close(self) -> None:
        """Release the files; views stay valid."""
        super().close()
        self._box.close()


def open_keras(
    store: Store, path: str, *, limits: Limits = DEFAULT_LIMITS, child: HDF5Child | None = None
) -> KerasReader:
    """Open a ``.keras`` archive or the directory of an unzipped one. Keras is never imported, no layer is built.

    Args:
        store: where it lies.
        path: the file or directory.
        limits: caps against hostile input.
        child: as for `openckpt.formats.keras_h5.open_hdf5`.

    Raises:
        CorruptionError: no zip, or no weights in it (``keras.not-an-archive``, ``keras.no-weights``), or damaged weights.
        UnsafeError: the weights are pickled objects (``keras.npz-weights``).
    """
    box = _open_box(store, path, limits)
    try:
        if not box.has(WEIGHTS):
            raise _no_weights(box, store.display(path))
        box.store.expect([box.join(name) for name in (METADATA, CONFIG, WEIGHTS) if box.has(name)])
        weights = box.open(WEIGHTS)
        try:
            report = inspect_source(weights, limits=limits, child=child)
            reader = KerasReader(store.display(path), box, weights, report, limits=limits, child=child)
            _describe(reader, box, limits)
        except BaseException:
            weights.close()
            raise
    except BaseException:
        box.close()
        raise
    return reader


def _open_box(store: Store, path: str, limits: Limits) -> _Box:
    from openckpt.storage.archive import archive_kind, open_archive

    stat = store.stat(path)
    if stat is not None and stat.kind == "dir":
        return _Box(store, path, None, None)
    source = store.open(path)
    try:
        if archive_kind(source) != "zip":
            raise CorruptionError(
                "keras.not-an-archive", source.path, "this is not a zip archive, and so no .keras file"
            )
        archive = open_archive(source, limits=limits)
    except BaseException:
        source.close()
        raise
    return _Box(archive, "", archive, source)


def _no_weights(box: _Box, path: str) -> CheckpointError:
    stat = box.store.stat(box.join(WEIGHTS))
    if stat is not None and stat.kind == "other":
        box.open(WEIGHTS).close()  # a link or a device: the store says so
    if box.has(NPZ_WEIGHTS):
        return UnsafeError("keras.npz-weights", path, f"the weights are {NPZ_WEIGHTS}, which holds pickled objects")
    names = ", ".join(map(repr, list(box.members())[:5])) or "nothing"
    return CorruptionError("keras.no-weights", path, "there is no model.weights.h5", found=names, expected=WEIGHTS)


def _describe(reader: KerasReader, box: _Box, limits: Limits) -> None:
    """Take names out of metadata.json and config.json; what is wrong with them does not keep the weights from being read."""
    metadata = _read_json(reader, box, METADATA, "keras.metadata", limits)
    if isinstance(metadata, dict):
        version, saved = metadata.get("keras_version"), metadata.get("date_saved")
        reader.keras_version = version if isinstance(version, str) else None
        reader.date_saved = saved if isinstance(saved, str) else None
    config = _read_bytes(reader, box, CONFIG, "keras.config", limits)
    if config is None:
        return
    try:
        found = parse_config(config, Where(reader.path, CONFIG), "keras.config")
    except FormatError as error:
        reader.add_problem(problem_of(error))
        return
    reader.class_name = found.class_name
    if found.lambda_layers:
        message = f"Keras would run code stored in this file for the layers {', '.join(found.lambda_layers)}"
        reader.add_problem(Problem("keras.lambda-layer", CONFIG, message))


def _read_bytes(reader: KerasReader, box: _Box, name: str, code: str, limits: Limits) -> bytes | None:
    if not box.has(name):
        reader.add_problem(Problem(code, name, f"the archive has no {name}"))
        return None
    try:
        return read_whole(box.store, box.join(name), limits=limits, cap="json_bytes", what=f"the size of {name}")
    except CheckpointError as error:
        reader.add_problem(problem_of(error))
        return None


def _read_json(reader: KerasReader, box: _Box, name: str, code: str, limits: Limits) -> Json:
    data = _read_bytes(reader, box, name, code, limits)
    if data is None:
        return None
    try:
        return parse_json(data, Where(reader.path, name), code=code)
    except FormatError as error:
        reader.add_problem(problem_of(error))
        return None
