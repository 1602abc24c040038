"""Manifests, object graphs, SavedModels and V1 tables that strangers wrote come back byte for byte and without a finding."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from openckpt.formats.manifest import encode_manifest, parse_manifest
from openckpt.formats.objectgraph import encode_object_graph, parse_object_graph
from openckpt.formats.savedmodel import read_saved_model, validate_saved_model
from openckpt.formats.v1 import encode_v1, open_v1
from openckpt.storage import LOCAL
from oracle import CORPUS, corpus_cases

pytestmark = pytest.mark.corpus


# Written inside Google, where names go before numbers; legal, and read all the same.
OTHER_ORDER = {"serving-savedmodel-tf2", "tfx-transform-savedmodel"}


def _each(kind: str, **wanted: object) -> list[Any]:
    """One parameter per record of this kind; a single empty one where the corpus is absent, so that its absence shows."""
    found = [
        pytest.param(CORPUS / case["id"], record, id=f"{case['id']}/{record.get('file') or record.get('prefix')}")
        for case in corpus_cases()
        for record in case.get(kind, ())
        if all(record.get(field) == value for field, value in wanted.items())
    ]
    return found or [pytest.param(Path(), {}, id="absent")]


@pytest.mark.parametrize(("folder", "record"), _each("manifests"))
def test_manifest(corpus: Path, folder: Path, record: dict[str, Any]) -> None:
    """The same fields, and the same bytes written back (all of them were written by TensorFlow)."""
    data = (folder / record["file"]).read_bytes()
    parsed = parse_manifest(data, record["file"])
    assert parsed.model_checkpoint_path == record["model_checkpoint_path"]
    assert list(parsed.all_model_checkpoint_paths) == record["all_model_checkpoint_paths"]
    assert list(parsed.all_model_checkpoint_timestamps) == record.get("timestamps", [])
    assert parsed.last_preserved_timestamp == record.get("last_preserved_timestamp", 0.0)
    assert parsed.problems == ()
    assert encode_manifest(parsed) == data


@pytest.mark.parametrize(("folder", "record"), _each("saved_models"))
def test_saved_model(corpus: Path, folder: Path, record: dict[str, Any]) -> None:
    """Style by its object graph, variables beside it, and no finding."""
    directory = str((folder / record["file"]).parent)
    model = read_saved_model(LOCAL, directory)
    assert model.style == ("tf2" if record["object_graph"] else "tf1")
    assert model.variables is not None
    assert validate_saved_model(LOCAL, directory) == []


@pytest.mark.parametrize(("folder", "record"), _each("checkpoints", format="tf-v1"))
def test_v1_table(corpus: Path, folder: Path, record: dict[str, Any]) -> None:
    """No finding, the version stated, and (but for the very first writer, which kept another order) the same bytes back."""
    reader = open_v1(LOCAL, str(folder / record["prefix"]))
    assert list(reader.validate()) == []
    assert len(reader) == record["table"]["tensors"]
    assert reader.producer == record["table"]["version_producer"]
    if reader.producer:
        values = {key: reader.read(key) for key, _ in reader.items()}
        assert encode_v1(values, "m")["m"] == (folder / record["prefix"]).read_bytes()


@pytest.mark.parametrize(("folder", "record"), _each("checkpoints", format="tf-v2", tf_reads=True))
def test_object_graph(corpus: Path, folder: Path, record: dict[str, Any]) -> None:
    """Every graph comes back equal, the first path of each key is the key itself."""
    from openckpt.formats.bundle import open_bundle

    key = "_CHECKPOINTABLE_OBJECT_GRAPH"
    reader = open_bundle(LOCAL, str(folder / record["prefix"]))
    graph = reader.graph()
    assert (graph is not None) == any(row[0] == key for row in record["tensors"])
    if graph is not None:
        encoded = encode_object_graph(graph)
        assert parse_object_graph(encoded, "again") == graph
        assert (encoded == reader.read(key)[()]) is (folder.name not in OTHER_ORDER)
        first: dict[str, str] = {}
        paths = graph.paths()
        for path, name in paths:
            first.setdefault(name, path)
        assert not paths.cut
        assert all(path == name for name, path in first.items())
