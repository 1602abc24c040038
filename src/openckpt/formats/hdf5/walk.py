"""Walk an HDF5 file once and say what is in it: every dataset by its full path, where its bytes lie, and what is wrong.

Links are looked at before anything is opened: soft and external links are named and never followed; a group that is met again
(hard links can make a loop) is not entered twice. Virtual datasets and datasets in external files are named before libhdf5
is asked for their size, because that question already opens the other files.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from openckpt.errors import CheckpointError, Where
from openckpt.formats.hdf5.attributes import Attributes, parse_config
from openckpt.formats.hdf5.judging import refusal_of
from openckpt.formats.hdf5.library import LIBRARY_ERRORS, first_line, opened
from openckpt.formats.hdf5.plain import is_plain_openckpt, read_carried
from openckpt.formats.hdf5.report import (
    Dataset,
    HDF5Report,
    KerasAttributes,
    Layout,
    Problem,
    Storage,
    failed_report,
    problem_of,
)
from openckpt.formats.hdf5.superblock import NOT_CLOSED, Superblock, read_superblock
from openckpt.formats.hdf5.types import stored_type
from openckpt.limits import DEFAULT_LIMITS, Limits

if TYPE_CHECKING:
    from h5py import h5d, h5g, h5l

    from openckpt.storage.reading import ByteSource

_VARS = re.compile(r"(?:^|/)vars/\d+$")
_DIGITS = re.compile(r"(\d+)")


def inspect_hdf5(source: ByteSource, *, limits: Limits = DEFAULT_LIMITS) -> HDF5Report:
    """Look at an HDF5 file in this process; damage becomes problems of the report, `HDF5Report.fatal` where nothing opens."""
    try:
        block = read_superblock(source)
        if block.open_for_writing:
            return failed_report(source.path, Problem("hdf5.not-closed", None, NOT_CLOSED, offset=block.offset))
        with opened(source) as root:
            return _Walk(source, block, limits).run(root)
    except CheckpointError as error:
        return failed_report(source.path, problem_of(error))


@dataclass(slots=True)
class _Group:
    path: str
    depth: int
    gid: h5g.GroupID


class _Walk:
    """One walk; holds what it has met so far."""

    def __init__(self, source: ByteSource, block: Superblock, limits: Limits) -> None:
        self._source = source
        self._offset_size = block.offset_size
        self._attributes = Attributes(source, block, limits)
        self._size = source.size
        self._limits = limits
        self._where = Where(source.path)
        self._datasets: list[Dataset] = []
        self._problems: list[Problem] = []
        self._groups: dict[int, str] = {}
        self._entered: set[str] = set()
        self._names: dict[str, str] = {}
        self._objects = 0
        self._ours = False

    def run(self, root: h5g.GroupID) -> HDF5Report:
        from h5py import h5o

        self._groups[h5o.get_info(root).addr] = "/"
        self._ours = is_plain_openckpt(self._attributes, root, self._where)
        pending = [_Group("", 0, root)]
        while pending:
            group = pending.pop()
            # a stack, so the last one pushed comes first: push in reverse to walk in name order
            pending.extend(reversed(self._enter(group)))
        keras = KerasAttributes() if self._ours else self._keras(root)
        self._datasets = in_reading_order(self._datasets, keras)
        problems = [*self._problems, *(d.refusal for d in self._datasets if d.refusal is not None)]
        if self._attributes.skipped:
            names = ", ".join(map(repr, dict.fromkeys(self._attributes.skipped)))
            problems.append(
                Problem("hdf5.attribute-skipped", None, f"attributes of a size that cannot be bounded: {names}")
            )
        if keras.lambda_layers:
            message = f"Keras would run code stored in this file for the layers {', '.join(keras.lambda_layers)}"
            problems.append(Problem("keras.lambda-layer", None, message))
        return HDF5Report(self._source.path, tuple(self._datasets), keras, tuple(problems))

    def _enter(self, group: _Group) -> list[_Group]:
        from h5py import h5l

        links: list[tuple[bytes, int, int]] = []
        cap = self._limits.hdf5_objects

        def note(name: bytes, info: h5l.LinkInfo) -> bool | None:
            links.append((bytes(name), int(info.type), int(info.u)))  # h5py uses one info object for all links
            return True if self._objects + len(links) > cap else None

        try:
            group.gid.links.iterate(note, info=True)
        except LIBRARY_ERRORS as error:
            self._problems.append(_damaged(group.path, error))
        self._objects += len(links)
        self._limits.check("hdf5_objects", self._objects, self._where, "the number of groups and datasets")
        inner: list[_Group] = []
        for name, kind, address in links:
            text = name.decode("utf-8", "surrogateescape")
            path = f"{group.path}/{text}" if group.path else text
            if kind != h5l.TYPE_HARD:
                self._link(path, soft=kind == h5l.TYPE_SOFT)
                continue
            child = self._open(group.gid, name, path, address)
            if child is not None:
                self._limits.check(
                    "hdf5_depth", group.depth + 1, Where(self._source.path, path), "the nesting of groups"
                )
                inner.append(_Group(path, group.depth + 1, child))
        return inner

    def _link(self, path: str, *, soft: bool) -> None:
        # a link that a plugin defined (neither hard nor soft) leads elsewhere just like an external one
        kind, code = ("soft", "hdf5.soft-link") if soft else ("external", "hdf5.external-link")
        refusal = Problem(code, path, f"the {kind} link is not followed")
        self._datasets.append(Dataset(path, f"unknown-{kind}-link", None, None, "none", refusal=refusal))

    def _open(self, parent: h5g.GroupID, name: bytes, path: str, address: int) -> h5g.GroupID | None:
        """Take in what a hard link leads to; returns it when it is a group that was not met before."""
        from h5py import h5d, h5g, h5o

        met = self._groups.get(address)
        if met is not None:
            message = f"the group is the same object as {met!r} and is listed there"
            self._problems.append(Problem("hdf5.shared-group", path, message))
            return None
        try:
            thing = h5o.open(parent, name)
            if isinstance(thing, h5d.DatasetID):
                self._datasets.append(self._dataset(thing, path))
            elif isinstance(thing, h5g.GroupID):
                self._groups[address] = path
                self._entered.add(path)
                if not self._ours and thing.links.exists(b"vars"):
                    label = self._attributes.text(thing, "name")
                    if label is not None:
                        self._names[path] = label
                return thing
        except LIBRARY_ERRORS as error:
            refusal = _damaged(path, error)
            self._datasets.append(Dataset(path, "unknown-damaged", None, None, "none", refusal=refusal))
        return None

    def _dataset(self, did: h5d.DatasetID, path: str) -> Dataset:
        from h5py import h5d, h5s, h5t

        plan = did.get_create_plist()
        layout = plan.get_layout()
        if layout == h5d.VIRTUAL:
            return _refused(path, "hdf5.virtual-dataset", "the dataset is pieced together from other files")
        if plan.get_external_count():
            return _refused(path, "hdf5.external-storage", "the bytes of the dataset lie in another file")
        tid = did.get_type()
        named = self._attributes.text(did, "dtype") if tid.get_class() == h5t.OPAQUE else None
        kind = stored_type(tid, named)
        if kind.text == "variable":
            # in the file: length, address and index in the global heap; libhdf5 states the size of a pointer instead
            kind = replace(kind, itemsize=8 + self._offset_size)
        space = did.get_space()
        if space.get_simple_extent_type() == h5s.NULL:
            empty = Problem("hdf5.null-dataspace", path, "the dataset has a type and no elements")
            return Dataset(path, kind.dtype, None, 0, "none", refusal=empty)
        shape = tuple(int(length) for length in space.get_simple_extent_dims())
        stored = int(did.get_storage_size())
        storage: Storage = "compact"
        if layout != h5d.COMPACT:
            storage = "contiguous" if layout == h5d.CONTIGUOUS else "chunked"
        offset = did.get_offset() if storage == "contiguous" else None
        if stored == 0 or (storage == "contiguous" and offset is None):
            storage, offset = "none", None
        found = Dataset(path, kind.dtype, shape, stored, storage, offset, kind.itemsize, kind.big_endian, kind.text)
        refusal = refusal_of(found, kind, plan, self._size, self._limits)
        if refusal is not None:
            return replace(found, refusal=refusal)
        if not self._ours:
            return found
        try:
            return replace(found, carried=read_carried(self._attributes, did, found, self._where.path, self._limits))
        except CheckpointError as error:
            return replace(found, dtype="unknown-damaged", refusal=problem_of(error))

    def _keras(self, root: h5g.GroupID) -> KerasAttributes:
        whole = self._group(root, "model_weights")
        home = root if whole is None else whole
        layer_names = self._attributes.text_list(home, "layer_names")
        has_config = self._attributes.exists(root, "model_config")
        layout: Layout = "plain"
        if layer_names is not None or whole is not None:
            layout = "keras-legacy-weights" if whole is None and not has_config else "keras-legacy-model"
        elif self._is_keras3():
            layout = "keras3-weights"
        weight_names: dict[str, tuple[str, ...]] = {}
        prefix = "" if whole is None else "model_weights/"
        for layer in dict.fromkeys(layer_names or ()):
            names = self._weight_names(home, layer, prefix)
            if names:
                weight_names[layer] = names
        class_name, lambdas = self._config(root) if has_config else (None, ())
        return KerasAttributes(
            layout=layout,
            keras_version=self._attributes.text(home, "keras_version") or self._attributes.text(root, "keras_version"),
            backend=self._attributes.text(home, "backend") or self._attributes.text(root, "backend"),
            layer_names=layer_names or (),
            weight_names=weight_names,
            optimizer_weight_names=self._weight_names(root, "optimizer_weights", ""),
            weights_group="" if whole is None else "model_weights",
            has_model_config=has_config,
            has_training_config=self._attributes.exists(root, "training_config"),
            class_name=class_name,
            lambda_layers=lambdas,
            object_names=self._names,
        )

    def _weight_names(self, parent: h5g.GroupID, name: str, prefix: str) -> tuple[str, ...]:
        gid = self._group(parent, name, prefix)
        return () if gid is None else self._attributes.text_list(gid, "weight_names") or ()

    def _group(self, parent: h5g.GroupID, name: str, prefix: str = "") -> h5g.GroupID | None:
        """Return the group ``name`` of ``parent`` if the walk came through it, and so knows that no link leads away."""
        from h5py import h5g

        if f"{prefix}{name}" not in self._entered:
            return None
        try:
            return h5g.open(parent, name.encode("utf-8", "surrogateescape"))
        except LIBRARY_ERRORS:
            return None

    def _is_keras3(self) -> bool:
        homes = {"vars", "layers", "_layer_checkpoint_dependencies", "optimizer"} & self._entered
        return bool(homes) and all(_VARS.search(d.path) for d in self._datasets)

    def _config(self, root: h5g.GroupID) -> tuple[str | None, tuple[str, ...]]:
        text = self._attributes.text(root, "model_config")
        if text is None:
            return None, ()
        try:
            data = text.encode("utf-8", "surrogateescape")
            config = parse_config(data, Where(self._source.path, "model_config"), "keras.config")
        except CheckpointError as error:
            self._problems.append(problem_of(error))
            return None, ()
        return config.class_name, config.lambda_layers


def _refused(path: str, code: str, message: str) -> Dataset:
    return Dataset(path, f"unknown-{code.partition('.')[2]}", None, None, "none", refusal=Problem(code, path, message))


def _damaged(path: str, error: BaseException) -> Problem:
    return Problem("hdf5.object-damaged", path, f"the HDF5 library cannot read this object: {first_line(error)}")


def in_reading_order(datasets: list[Dataset], keras: KerasAttributes) -> list[Dataset]:
    """Return the datasets in the order of the attributes where they say one, the others after them by path.

    Paths compare part by part, digits as numbers: ``vars/2`` comes before ``vars/10``.
    """
    prefix = f"{keras.weights_group}/" if keras.weights_group else ""
    named = [f"{prefix}{layer}/{name}" for layer, names in keras.weight_names.items() for name in names]
    named += [f"optimizer_weights/{name}" for name in keras.optimizer_weight_names]
    rank: dict[str, int] = {}
    for path in named:
        rank.setdefault(path, len(rank))
    last = len(rank)
    return sorted(datasets, key=lambda d: (rank.get(d.path, last), natural(d.key)))


def natural(path: str) -> tuple[tuple[tuple[int, str], ...], ...]:
    """Return a sort key that puts ``dense_2`` before ``dense_10``."""
    # numbers compare by length and then as text, so that a name of a million digits costs nothing
    return tuple(
        tuple((len(piece) if i % 2 else 0, piece) for i, piece in enumerate(_DIGITS.split(part)))
        for part in path.split("/")
    )
