"""Every checkpoint of the development corpus reads as TensorFlow and h5py say it must: 100 %, no exception."""

from __future__ import annotations

from contextlib import closing, nullcontext
from pathlib import Path
from typing import Any

import pytest

import openckpt
from openckpt.errors import CheckpointWarning
from openckpt.formats.metagraph import parse_meta_graph
from openckpt.formats.savedmodel import read_saved_model
from openckpt.storage import LOCAL
from oracle import corpus_cases, sha256_of

pytestmark = pytest.mark.corpus

FORMATS = {"tf-v1": "table-v1", "tf-v2": "bundle-v2", "hdf5": "hdf5", "keras-zip": "keras-v3"}

Record = dict[str, Any]


def _records(*, readable: bool) -> list[Any]:
    """One parameter per checkpoint; a single empty one where the corpus is absent, so that its absence shows."""
    found = [
        pytest.param(case["id"], record, id=f"{case['id']}/{record['prefix']}:{record['format']}")
        for case in corpus_cases()
        for record in case.get("checkpoints", ())
        if bool(record.get("tf_reads") or record.get("h5py_reads")) is readable
    ]
    return found or [pytest.param("", {}, id="absent")]


def _listed(field: str) -> list[Any]:
    """One parameter per record of the lists beside the checkpoints (``manifests``, ``saved_models`` ...)."""
    found = [
        pytest.param(case["id"], record, id=f"{case['id']}/{record.get('file') or record.get('prefix')}")
        for case in corpus_cases()
        for record in case.get(field, ())
    ]
    return found or [pytest.param("", {}, id="absent")]


def _name_to_open(root: Path, record: Record) -> str:
    """A literal file wins over a prefix of the same name; then ``NAME.index`` is how the prefix is meant."""
    path = f"{root}/{record['prefix']}"
    return f"{path}.index" if record["format"] == "tf-v2" and Path(path).is_file() else path


@pytest.mark.parametrize(("case", "record"), _records(readable=True))
def test_keys_dtypes_shapes_and_values_are_equal(corpus: Path, case: str, record: Record) -> None:
    """Names, dtypes, shapes and the hash of every value equal what the format's own library read."""
    with openckpt.open(_name_to_open(corpus / case, record)) as ckpt:
        read = {key: [key, spec.dtype, list(spec.shape), sha256_of(ckpt[key])] for key, spec in ckpt.specs.items()}

        assert ckpt.format == FORMATS[record["format"]]
    expected = {row[0]: row for row in record["tensors"]}
    assert sorted(read) == sorted(expected)
    assert {key: row for key, row in read.items() if row != expected[key]} == {}


@pytest.mark.parametrize(("case", "record"), _records(readable=True))
def test_arrays_have_the_listed_dtype_and_shape(corpus: Path, case: str, record: Record) -> None:
    """What `specs` promises is what `read_many` returns, and every numeric value is the same array either way."""
    with openckpt.open(_name_to_open(corpus / case, record)) as ckpt:
        arrays = ckpt.read_many(list(ckpt))
        for key, array in arrays.items():
            assert array.shape == ckpt.specs[key].shape
            assert array.dtype == ckpt.specs[key].numpy_dtype
            assert sha256_of(array) == sha256_of(ckpt[key])


@pytest.mark.parametrize(("case", "record"), _records(readable=False))
def test_checkpoint_without_its_data_lists_and_names_the_missing_shard(corpus: Path, case: str, record: Record) -> None:
    """Where only the index is left, keys, dtypes and shapes are equal, and reading says which shard is missing."""
    with openckpt.open(_name_to_open(corpus / case, record)) as ckpt:
        listed = sorted([key, spec.dtype, list(spec.shape)] for key, spec in ckpt.specs.items())
        keys = list(ckpt)
        errors = []
        for key in keys:
            with pytest.raises(openckpt.CorruptionError) as caught:
                ckpt[key]
            errors.append(caught.value)

    assert listed == sorted(row[:3] for row in record["tensors"])
    assert {error.code for error in errors} == {"bundle.shard-missing"}
    missing = record["value_errors"][0]["message"].partition(";")[0]
    assert all(str(corpus / case / missing) in str(error) for error in errors)
    assert [error.where.key for error in errors] == keys


@pytest.mark.parametrize(("case", "record"), _listed("manifests"))
def test_manifest_says_what_tensorflow_says(corpus: Path, case: str, record: Record, monkeypatch: Any) -> None:
    """`latest_checkpoint` and `get_checkpoint_state` return TensorFlow's answers, None on a stale manifest included."""
    monkeypatch.chdir(corpus / case)
    directory, _, name = record["file"].rpartition("/")

    # TensorFlow logs an error where the manifest's newest is not there; a library warns.
    with nullcontext() if record["tf_latest_checkpoint"] else pytest.warns(CheckpointWarning, match="not there"):
        latest = openckpt.latest_checkpoint(directory or ".", name)
    state = openckpt.get_checkpoint_state(directory or ".", name)

    assert latest == record["tf_latest_checkpoint"]
    assert state is not None

    def absolute(path: str) -> str:
        outside = path.startswith("/")
        return path if outside else f"{directory or '.'}/{path}"

    assert state.model_checkpoint_path == absolute(record["model_checkpoint_path"])
    assert list(state.all_model_checkpoint_paths) == [absolute(path) for path in record["all_model_checkpoint_paths"]]
    assert list(state.all_model_checkpoint_timestamps) == record.get("timestamps", [])


def _meta_records() -> list[Any]:
    """Every ``.meta`` file of the corpus, beside its checkpoint or alone."""
    found = {}
    for case in corpus_cases():
        beside = [record.get("meta") for record in [*case.get("checkpoints", ()), *case.get("v1_shards", ())]]
        for meta in [*filter(None, beside), *case.get("meta_without_checkpoint", ())]:
            found[f"{case['id']}/{meta['file']}"] = pytest.param(case["id"], meta, id=f"{case['id']}/{meta['file']}")
    return list(found.values()) or [pytest.param("", {}, id="absent")]


@pytest.mark.parametrize(("case", "record"), _meta_records())
def test_meta_graph_says_what_tensorflow_parsed(corpus: Path, case: str, record: Record) -> None:
    """Which TensorFlow wrote it, its graph's version, its saver's format, its nodes and ops."""
    with closing(LOCAL.open(str(corpus / case / record["file"]))) as source:
        meta = parse_meta_graph(source)

    read = {
        "tensorflow_version": meta.tensorflow_version,
        "graph_producer": meta.producer,
        "saver_version": meta.saver.version if meta.saver else None,
        "nodes": meta.nodes,
        "stripped_ops": meta.stripped_ops,
        "object_graph": meta.object_nodes is not None,
    }
    assert read == {field: record[field] for field in read}


@pytest.mark.parametrize(("case", "record"), _listed("saved_models"))
def test_saved_model_says_what_tensorflow_parsed(corpus: Path, case: str, record: Record) -> None:
    """Schema, tags, TensorFlow's version, object graph and assets; the directory opens as its variables."""
    directory = (corpus / case / record["file"]).parent

    model = read_saved_model(LOCAL, str(directory))

    read = {
        "schema": model.schema_version,
        "meta_graphs": len(model.meta_graphs),
        "tags": list(model.meta_graphs[0].tags),
        "tensorflow_version": model.tensorflow_version,
        "object_graph": model.style == "tf2",
        "assets": model.meta_graphs[0].assets,
    }
    assert read == {field: record[field] for field in read}
    with openckpt.open(directory) as ckpt, openckpt.open(directory / "variables" / "variables") as variables:
        assert list(ckpt.specs.items()) == list(variables.specs.items())


@pytest.mark.parametrize(("case", "record"), _listed("not_checkpoints"))
def test_files_that_only_look_like_checkpoints_are_named_for_what_they_are(
    corpus: Path, case: str, record: Record
) -> None:
    """A Git LFS pointer and an error page are refused by name, as is what nobody knows."""
    with pytest.raises(openckpt.CheckpointError) as caught:
        openckpt.open(corpus / case / record["file"])

    expected = {"git-lfs pointer": "detect.lfs-pointer", "XML error page": "detect.xml-error-page"}
    assert caught.value.code == expected[record["content"]]


@pytest.mark.parametrize(("case", "record"), _listed("v1_shards"))
def test_sharded_v1_opens_by_its_prefix_pattern_and_shard(corpus: Path, case: str, record: Record) -> None:
    """A V1 shard opens by its own name, by the pattern that manifests hold, and by the bare prefix that TensorFlow refuses."""
    [tried] = [one for one in record["tried"] if one.get("tf") == "reads"]
    for name in (*record["shards"], tried["prefix"], record["prefix"]):
        with openckpt.open(corpus / case / name) as ckpt:
            assert ckpt.format == "table-v1"
            assert len(ckpt) == tried["tensors"]
