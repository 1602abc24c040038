"""The graph files around a checkpoint: the ``.meta`` of TensorFlow 1 beside it, the SavedModel around it (formats 5)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

from openckpt.doctor.scene import Scene, refusal
from openckpt.errors import CheckpointError, shown
from openckpt.findings import Finding, finding_of, make_finding
from openckpt.formats.metagraph import MetaGraph, parse_meta_graph
from openckpt.formats.names import SAVED_MODEL_NAMES
from openckpt.formats.savedmodel import read_saved_model, validate_saved_model
from openckpt.formats.spec import TensorReader
from openckpt.opening.listing import Group
from openckpt.storage import FileStat


def check_saved_model(scene: Scene) -> list[Finding]:
    """Return what is wrong with a SavedModel apart from the checkpoint inside it, and which TensorFlow wrote it."""
    directory = scene.listing.directory
    if not scene.listing.saved_model:
        return [
            make_finding(
                "run.no-saved-model", scene.path(SAVED_MODEL_NAMES[0]), "the graph of this SavedModel is missing"
            )
        ]
    try:
        findings = validate_saved_model(scene.store, directory, limits=scene.limits)
        if any(finding.severity == "error" for finding in findings):
            return findings
        model = read_saved_model(scene.store, directory, limits=scene.limits)
    except CheckpointError as error:
        return [finding_of(error)]
    except OSError as error:
        return [make_finding("storage.unreadable", scene.path(SAVED_MODEL_NAMES[0]), refusal(error))]
    if model.tensorflow_version:
        message = f"a SavedModel written by TensorFlow {model.tensorflow_version}"
        findings.append(make_finding("run.written-by", model.path, message))
    return findings


def check_meta_graph(scene: Scene, group: Group, reader: TensorReader) -> Iterator[Finding]:
    """Yield what is to be said of the ``.meta`` beside a checkpoint: damage, its writer, variables that were not saved."""
    for stat in group.extras:
        place = scene.store.display(stat.path)
        try:
            graph = read_meta_graph(scene, stat)
            absent = [variable.key for variable in graph.variables if variable.key not in reader]
        except CheckpointError as error:
            yield finding_of(error)
            continue
        except OSError as error:
            yield make_finding("storage.unreadable", place, refusal(error), severity="warning")
            continue
        if absent:
            message = f"{len(absent)} of {len(graph.variables)} variables of the graph are not in the checkpoint: {shown(absent)}"
            yield make_finding("run.variables-not-saved", place, message)
        if graph.tensorflow_version:
            yield make_finding("run.written-by", place, f"written by TensorFlow {graph.tensorflow_version}")


def read_meta_graph(scene: Scene, stat: FileStat) -> MetaGraph:
    """Read one ``.meta`` file; raises CheckpointError and OSError."""
    with closing(scene.store.open(stat.path)) as source:
        return parse_meta_graph(source, scene.limits)
