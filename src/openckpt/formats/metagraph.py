"""Meta graphs, as far as a checkpoint tool needs them: ``.meta`` files and the inside of a SavedModel (formats 5.1).

    MetaGraphDef   0a  meta info    { 12 stripped ops { 0a op ... }  22 tag ...  2a TensorFlow's version  32 git version }
                   12  graph        { 0a node ...  22 versions { 08 producer } }      may have hundreds of megabytes
                   1a  saver        { 0a filename tensor  12 save tensor  1a restore op  20 kept  28 sharded  38 version }
                   22  collection   { 0a name  12 { 12 bytes list { 0a VariableDef ... } } }
                   32  asset
                   3a  object graph { 0a object ... }                                 TF2 SavedModels only
    VariableDef    0a name "w:0"    22 slice { 0a full name  12 full shape  1a offset  22 shape }    28 resource
    object         3a variable { 08 dtype  12 shape { 12 dim { 08 size } }  18 trainable  32 name }

The graph is walked over, not read: only its nodes are counted and its version taken. Written as text (``.pbtxt``) a meta graph
is recognised, its version looked for, and no more.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from openckpt.errors import CorruptionError, Where
from openckpt.formats.dtypes import dtype_of_enum, unknown_name
from openckpt.formats.messages import parse_shape
from openckpt.formats.messagewalk import Field, MessageFile
from openckpt.formats.wire import iter_fields, parse_varint, text_fields, to_signed, varint_fields
from openckpt.limits import DEFAULT_LIMITS, Limits

if TYPE_CHECKING:
    from collections.abc import Iterator

    from openckpt.storage.reading import ByteSource

_MOST_NODES = 200_000  # of a larger graph the nodes are not counted: walking over them would take a second
_TEXT_SEARCHED = 16 << 20  # bytes of a text file in which the version is looked for; the list of ops stands before it
_TEXT = re.compile(
    rb"\s*(?:#[^\n]*\n\s*)*(?:saved_model_schema_version|meta_graphs|meta_info_def|graph_def|saver_def)\s*[:{<]"
)
_TEXT_VERSION = re.compile(rb'\btensorflow_version\s*:\s*"([^"\\\n]{0,100})"')


@dataclass(frozen=True, slots=True)
class Saver:
    """How the program saved: names of its ops, and which format (``version`` 0 legacy, 1 V1, 2 V2)."""

    filename_tensor: str
    save_tensor: str
    restore_op: str
    max_to_keep: int
    sharded: bool
    keep_every_n_hours: float
    version: int


class VariableSlice(NamedTuple):
    """Which part of a partitioned variable one piece is."""

    full_shape: tuple[int, ...]
    offset: tuple[int, ...]
    shape: tuple[int, ...]


class GraphVariable(NamedTuple):
    """A variable of the graph, from its collections.

    Attributes:
        name: with its output, ``dense/kernel:0``.
        key: its key in the checkpoint: the name without ``:0``, or the full name of the tensor that it is a piece of.
        trainable: whether it is in the collection of trainable variables.
        piece: which part of a partitioned variable it is, None for a whole one.
    """

    name: str
    key: str
    trainable: bool
    is_resource: bool
    piece: VariableSlice | None


class ObjectVariable(NamedTuple):
    """A variable of a TF2 SavedModel; ``node_id`` is that of the checkpoint's object graph too."""

    node_id: int
    name: str
    dtype: str
    shape: tuple[int, ...] | None
    trainable: bool


@dataclass(frozen=True, slots=True)
class MetaGraph:
    """What a meta graph says.

    Attributes:
        tensorflow_version: which TensorFlow wrote it; "" before 0.12, which did not say.
        producer: version of the graph format; tells old releases apart. None where it was not looked for.
        nodes: nodes of the graph; None where there are too many to count.
        stripped_ops: length of the list of ops that the graph uses.
        saver: None where the graph has none.
        collections: names of all collections.
        variables: of the collections of variables, each once.
        object_nodes: nodes of the object graph, None where there is none (TF1).
        object_variables: its variables.
        assets: how many asset files are named.
        is_text: written as text: only the version is known.
    """

    tensorflow_version: str = ""
    tensorflow_git_version: str = ""
    tags: tuple[str, ...] = ()
    producer: int | None = None
    nodes: int | None = None
    stripped_ops: int = 0
    saver: Saver | None = None
    collections: tuple[str, ...] = ()
    variables: tuple[GraphVariable, ...] = ()
    object_nodes: int | None = None
    object_variables: tuple[ObjectVariable, ...] = ()
    assets: int = 0
    is_text: bool = False


def parse_meta_graph(source: ByteSource, limits: Limits = DEFAULT_LIMITS) -> MetaGraph:
    """Parse an open ``.meta`` file.

    Raises:
        CorruptionError: ``meta.empty``, ``meta.lfs-pointer``, ``meta.does-not-parse``.
        LimitError: what is read of it exceeds ``limits.graph_bytes`` or ``limits.graph_nodes``.
    """
    check_is_message(source, "meta", "a meta graph")
    if text_start(source):
        return MetaGraph(tensorflow_version=text_version(source), is_text=True)
    try:
        return parse_meta_message(MessageFile(source), 0, source.size, source.path, limits)
    except ValueError as error:
        raise CorruptionError(
            "meta.does-not-parse", source.path, f"no meta graph: {error}", found=f"{source.size} bytes"
        ) from None


def check_is_message(source: ByteSource, area: str, what: str) -> None:
    """Raise CorruptionError ``AREA.empty`` or ``AREA.lfs-pointer`` for a file that is no message at first sight."""
    if source.size == 0:
        raise CorruptionError(f"{area}.empty", source.path, f"the file is empty, not {what}")
    head = source.read_at(0, min(source.size, 200))
    if head.startswith(b"version") and b"git-lfs" in head.partition(b"\n")[0]:
        raise CorruptionError(f"{area}.lfs-pointer", source.path, f"a git-lfs pointer, not {what}")


def text_start(source: ByteSource) -> bool:
    """Return whether a file starts like a meta graph or SavedModel in text format."""
    return _TEXT.match(source.read_at(0, min(source.size, 1 << 12))) is not None


def text_version(source: ByteSource) -> str:
    """Return the version of TensorFlow that a text file states, "" where it is not found."""
    match = _TEXT_VERSION.search(source.read_at(0, min(source.size, _TEXT_SEARCHED)))
    return match[1].decode("utf-8", "replace") if match else ""


def parse_meta_message(file: MessageFile, start: int, stop: int, path: str, limits: Limits) -> MetaGraph:
    """Parse the MetaGraphDef that lies in a file from ``start`` to ``stop``; raises ValueError where it is none."""
    parse = _Parse(file, path, limits)
    for field in file.fields(start, stop):
        if field.wire == 2:
            parse.take(field)
    return parse.result()


class _Parse:
    """One run over one MetaGraphDef."""

    def __init__(self, file: MessageFile, path: str, limits: Limits) -> None:
        self._file, self._path, self._limits = file, path, limits
        self._tags: list[str] = []
        self._versions = {5: "", 6: ""}
        self._stripped_ops = self._assets = 0
        self._graph: tuple[int | None, int | None] = (None, None)
        self._saver: Saver | None = None
        self._collections: list[str] = []
        self._variables: dict[str, GraphVariable] = {}
        self._trainable: set[str] = set()
        self._object_nodes: int | None = None
        self._object_variables: list[ObjectVariable] = []

    def take(self, field: Field) -> None:
        match field.number:
            case 1:
                self._take_info(field)
            case 2:
                self._take_graph(field)
            case 3:
                self._saver = _parse_saver(self._read(field))
            case 4:
                self._take_collection(field)
            case 6:
                self._assets += 1
            case 7:
                self._take_objects(field)

    def result(self) -> MetaGraph:
        return MetaGraph(
            self._versions[5],
            self._versions[6],
            tuple(self._tags),
            *self._graph,
            self._stripped_ops,
            self._saver,
            tuple(self._collections),
            tuple(v._replace(trainable=v.name in self._trainable) for v in self._variables.values()),
            self._object_nodes,
            tuple(self._object_variables),
            self._assets,
        )

    def _read(self, field: Field) -> bytes:
        self._limits.check("graph_bytes", field.stop - field.start, self._path, f"the size of field {field.number}")
        return self._file.read(field)

    def _count(self, what: str, number: int) -> None:
        self._limits.check("graph_nodes", number, self._path, f"the number of {what}")

    def _take_info(self, field: Field) -> None:
        for part in self._file.fields(field.start, field.stop):
            if part.wire != 2:
                continue
            if part.number == 2:
                self._stripped_ops += self._file.count(part.start, part.stop, 1)
            elif part.number == 4:
                self._tags.append(self._read(part).decode())
                self._count("tags", len(self._tags))
            elif part.number in self._versions:
                self._versions[part.number] = self._read(part).decode()

    def _take_graph(self, field: Field) -> None:
        nodes, producer = 0, 0
        for part in self._file.fields(field.start, field.stop):
            if part.number == 1:
                nodes += 1
                if nodes > _MOST_NODES:
                    return
            elif part.number == 4 and part.wire == 2:
                producer = varint_fields(self._read(part)).get(1, producer)
        self._graph = (producer, nodes)

    def _take_collection(self, field: Field) -> None:
        name = ""
        values: list[Field] = []
        for part in self._file.fields(field.start, field.stop):
            if part.wire == 2 and part.number == 1:
                name = self._read(part).decode()
            elif part.wire == 2 and part.number == 2:
                values.append(part)
        self._collections.append(name)
        self._count("collections", len(self._collections))
        if not (name.endswith("variables") or name == "global_step"):
            return
        for value in values:
            for kind in self._file.fields(value.start, value.stop):
                if kind.number == 2 and kind.wire == 2:
                    self._take_variables(name, self._read(kind))

    def _take_variables(self, collection: str, bytes_list: bytes) -> None:
        for number, _, raw in iter_fields(bytes_list):
            if number != 1 or not isinstance(raw, bytes):
                continue
            variable = _parse_variable(raw)
            if variable.name:  # a collection of the same name may hold something else
                self._variables.setdefault(variable.name, variable)
                self._count("variables", len(self._variables))
                if collection == "trainable_variables":
                    self._trainable.add(variable.name)

    def _take_objects(self, field: Field) -> None:
        count = 0
        for node in self._file.fields(field.start, field.stop):
            if node.number != 1 or node.wire != 2:
                continue
            for part in self._file.fields(node.start, node.stop):
                if part.number == 7 and part.wire == 2:
                    self._object_variables.append(self._parse_object_variable(count, self._read(part)))
            count += 1
            self._count("objects", count)
        self._object_nodes = count

    def _parse_object_variable(self, node_id: int, data: bytes) -> ObjectVariable:
        name, enum, trainable = "", 0, False
        shape: tuple[int, ...] | None = ()
        for number, _, value in iter_fields(data):
            if isinstance(value, int):
                enum = value if number == 1 else enum
                trainable = value != 0 if number == 3 else trainable
            elif number == 2:
                shape = parse_shape(value, Where(self._path), self._limits)
            elif number == 6:
                name = value.decode()
        dtype = dtype_of_enum(enum)
        return ObjectVariable(node_id, name, unknown_name(enum) if dtype is None else dtype.name, shape, trainable)


def _parse_saver(data: bytes) -> Saver:
    texts, numbers = text_fields(data, (1, 2, 3)), varint_fields(data)
    hours = [value for number, wire, value in iter_fields(data) if (number, wire) == (6, 5) and isinstance(value, int)]
    keep = struct.unpack("<f", struct.pack("<I", hours[-1]))[0] if hours else 0.0
    return Saver(
        texts.get(1, ""),
        texts.get(2, ""),
        texts.get(3, ""),
        numbers.get(4, 0),
        numbers.get(5, 0) != 0,
        keep,
        numbers.get(7, 0),
    )


def _parse_variable(data: bytes) -> GraphVariable:
    name, resource, piece, full_name = "", False, None, ""
    for number, _, value in iter_fields(data):
        if isinstance(value, int):
            resource = value != 0 if number == 5 else resource
        elif number == 1:
            name = value.decode()
        elif number == 4:
            full_name, piece = _parse_slice_info(value)
    return GraphVariable(name, full_name or name.removesuffix(":0"), False, resource, piece)


def _parse_slice_info(data: bytes) -> tuple[str, VariableSlice]:
    full_name = ""
    lists: dict[int, list[int]] = {2: [], 3: [], 4: []}
    for number, _, value in iter_fields(data):
        if number == 1 and isinstance(value, bytes):
            full_name = value.decode()
        elif number in lists:
            lists[number] += [to_signed(value)] if isinstance(value, int) else _packed(value)
    return full_name, VariableSlice(tuple(lists[2]), tuple(lists[3]), tuple(lists[4]))


def _packed(data: bytes) -> Iterator[int]:
    pos = 0
    while pos < len(data):
        value, pos = parse_varint(data, pos)
        yield to_signed(value)
