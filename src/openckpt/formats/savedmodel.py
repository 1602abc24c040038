"""The directory of a SavedModel, as far as a checkpoint tool needs it (formats 5.2).

    saved_model.pb (or .pbtxt)          SavedModel { 08 schema version 1   12 meta graph ... }
    variables/variables.index, .data-*  an ordinary bundle, prefix variables/variables
    fingerprint.pb                      checksums of the others, opaque to us; editing the variables makes them stale
    keras_metadata.pb                   tf.keras 2.x: JSON per layer
    assets/                             vocabularies and the like

TF2 models have an object graph whose node numbers are those of the checkpoint's; TF1 models are name-based.
"""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from openckpt.errors import CheckpointError, CorruptionError, PathNotFoundError, Where
from openckpt.findings import Finding, finding_of, make_finding
from openckpt.formats.messagewalk import MessageFile
from openckpt.formats.metagraph import (
    MetaGraph,
    check_is_message,
    parse_meta_message,
    text_start,
    text_version,
)
from openckpt.formats.names import INDEX_SUFFIX, SAVED_MODEL_NAMES
from openckpt.formats.wire import parse_varint
from openckpt.limits import DEFAULT_LIMITS, Limits

if TYPE_CHECKING:
    from openckpt.storage.reading import ByteSource, Store

_SCHEMA_VERSION = 1


@dataclass(frozen=True, slots=True)
class SavedModel:
    """What a SavedModel's own files say.

    Attributes:
        path: its saved_model.pb or .pbtxt, as shown to people.
        schema_version: 1 in every release so far; 0 where the file is text and was not parsed.
        meta_graphs: one per set of tags; TF2 models have exactly one.
        is_text: written as text: only the version of TensorFlow is known.
        variables: prefix of its checkpoint, a path of the store; None where there is none.
        has_fingerprint: whether fingerprint.pb is there.
        has_keras_metadata: whether keras_metadata.pb is there: written by tf.keras 2.x.
    """

    path: str
    schema_version: int
    meta_graphs: tuple[MetaGraph, ...]
    is_text: bool
    variables: str | None
    has_fingerprint: bool
    has_keras_metadata: bool

    @property
    def style(self) -> Literal["tf1", "tf2", "unknown"]:
        """Which generation wrote it: TF2 models carry an object graph."""
        if self.is_text or not self.meta_graphs:
            return "unknown"
        return "tf2" if any(graph.object_nodes is not None for graph in self.meta_graphs) else "tf1"

    @property
    def tensorflow_version(self) -> str:
        """The TensorFlow that wrote it, "" where it does not say."""
        return self.meta_graphs[0].tensorflow_version if self.meta_graphs else ""

    @property
    def needs_variables(self) -> bool:
        """Whether its graphs have variables, so that a checkpoint must be there."""
        return any(graph.variables or graph.object_variables for graph in self.meta_graphs)


def find_saved_model(store: Store, directory: str) -> str | None:
    """Return the saved_model file of a directory, the binary one first, or None."""
    for name in SAVED_MODEL_NAMES:
        path = store.join(directory, name)
        stat = store.stat(path)
        if stat is not None and stat.kind == "file":
            return path
    return None


def read_saved_model(store: Store, directory: str, *, limits: Limits = DEFAULT_LIMITS) -> SavedModel:
    """Read what the SavedModel in ``directory`` says of itself; its variables are not opened.

    Raises:
        PathNotFoundError: no saved_model file there (``savedmodel.absent``).
        CorruptionError: ``savedmodel.empty``, ``savedmodel.lfs-pointer``, ``savedmodel.does-not-parse``.
        LimitError: what is read of it exceeds ``limits.graph_bytes`` or ``limits.graph_nodes``.
        OSError: as the system says.
    """
    path = find_saved_model(store, directory)
    if path is None:
        raise PathNotFoundError(
            "savedmodel.absent",
            store.display(directory),
            f"neither {' nor '.join(SAVED_MODEL_NAMES)} in this directory",
        )

    def has(*parts: str) -> bool:
        place = directory
        for part in parts:
            place = store.join(place, part)
        stat = store.stat(place)
        return stat is not None and stat.kind == "file"

    with closing(store.open(path)) as source:
        schema, graphs, is_text = _parse(source, limits)
    prefix = store.join(store.join(directory, "variables"), "variables")
    return SavedModel(
        store.display(path),
        schema,
        graphs,
        is_text,
        prefix if has("variables", "variables" + INDEX_SUFFIX) else None,
        has("fingerprint.pb"),
        has("keras_metadata.pb"),
    )


def _parse(source: ByteSource, limits: Limits) -> tuple[int, tuple[MetaGraph, ...], bool]:
    check_is_message(source, "savedmodel", "a SavedModel")
    if text_start(source):
        return 0, (MetaGraph(tensorflow_version=text_version(source), is_text=True),), True
    file = MessageFile(source)
    schema = 0
    graphs: list[MetaGraph] = []
    try:
        for field in file.fields(0, source.size):
            if field.number == 1 and field.wire == 0:
                schema, _ = parse_varint(file.read(field), 0)
            elif field.number == 2 and field.wire == 2:
                graphs.append(parse_meta_message(file, field.start, field.stop, source.path, limits))
                limits.check("graph_nodes", len(graphs), source.path, "the number of meta graphs")
    except ValueError as error:
        raise CorruptionError(
            "savedmodel.does-not-parse", source.path, f"no SavedModel: {error}", found=f"{source.size} bytes"
        ) from None
    return schema, tuple(graphs), False


def validate_saved_model(store: Store, directory: str, *, limits: Limits = DEFAULT_LIMITS) -> list[Finding]:
    """Return what is wrong with a SavedModel apart from its variables, which are a checkpoint of their own."""
    try:
        model = read_saved_model(store, directory, limits=limits)
    except CheckpointError as error:
        return [finding_of(error)]
    where = Where(model.path)
    findings = []
    if not model.meta_graphs:
        findings.append(make_finding("savedmodel.no-meta-graph", where, "the SavedModel holds no meta graph"))
    elif not model.is_text and model.schema_version != _SCHEMA_VERSION:
        findings.append(
            make_finding(
                "savedmodel.schema-version",
                where,
                "another version of the SavedModel format",
                expected=str(_SCHEMA_VERSION),
                found=str(model.schema_version),
            )
        )
    if model.needs_variables and model.variables is None:
        count = sum(len(graph.variables) + len(graph.object_variables) for graph in model.meta_graphs)
        findings.append(
            make_finding(
                "savedmodel.variables-missing",
                Where(store.display(store.join(directory, "variables"))),
                "the SavedModel has variables, and their checkpoint is not there",
                expected=f"the values of {count} variables",
                found="no variables/variables.index",
            )
        )
    return findings
