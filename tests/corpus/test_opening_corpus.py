"""Every path of the corpus means what its author meant: prefixes, members, manifests, directories; and find finds them all."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

import openckpt
from openckpt.errors import CheckpointError, CheckpointWarning, PathNotFoundError
from openckpt.finding import FoundCheckpoint, survey
from openckpt.formats.names import prefix_of
from oracle import corpus_cases

pytestmark = pytest.mark.corpus

FORMATS = {"tf-v1": "table-v1", "tf-v2": "bundle-v2", "hdf5": "hdf5", "keras-zip": "keras-v3"}
Record = dict[str, Any]


def records(field: str) -> list[Any]:
    found = [
        pytest.param(case["id"], record, id=f"{case['id']}/{record.get('file') or record.get('prefix')}:{number}")
        for case in corpus_cases()
        for number, record in enumerate(case.get(field, ()))
    ]
    return found or [pytest.param("", {}, id="absent")]


@pytest.mark.parametrize(("case", "record"), records("checkpoints"))
def test_every_member_leads_to_its_checkpoint(corpus: Path, case: str, record: Record) -> None:
    """Prefix, index, shards and meta graph of every V2 checkpoint of the corpus open the same keys."""
    prefix = f"{corpus / case}/{record['prefix']}"
    paths = [prefix]
    if record["format"] == "tf-v2":
        directory, _, name = prefix.rpartition("/")
        members = [f"{directory}/{file.name}" for file in Path(directory).iterdir() if file.name.startswith(f"{name}.")]
        # A literal file wins over a prefix of the same name, and a directory without its slash is the directory.
        literal = Path(prefix).exists() and not prefix.endswith("/")
        paths = [path for path in members if prefix_of(path) == prefix] + ([] if literal else [prefix])
        assert f"{prefix}.index" in paths
    for path in paths:
        with openckpt.open(path) as ckpt:
            assert (ckpt.format, len(ckpt)) == (FORMATS[record["format"]], len(record["tensors"])), path
            assert ckpt.prefix == prefix


@pytest.mark.parametrize(("case", "record"), records("manifests"))
def test_latest_checkpoint_as_tensorflow(
    corpus: Path, monkeypatch: pytest.MonkeyPatch, case: str, record: Record
) -> None:
    """latest_checkpoint gives for every manifest what TensorFlow gave."""
    monkeypatch.chdir(corpus / case)
    directory, _, name = record["file"].rpartition("/")
    if record["tf_latest_checkpoint"] is None:
        with pytest.warns(CheckpointWarning):
            assert openckpt.latest_checkpoint(directory or ".", name) is None
    else:
        assert openckpt.latest_checkpoint(directory or ".", name) == record["tf_latest_checkpoint"]


# What a directory means where its manifest does not hold: kind of the choice and the checkpoint.
ELSEWHERE = {
    "serving-bad-half-plus-two/00000123": ("manifest", "export"),  # an absolute path elsewhere; the file lies here
    "onnx-regression-windows-manifest/": ("manifest", "model"),
    "mtcnn-manifest-names-missing-step/PNet_landmark": ("scan", "PNet-18"),
    "mtcnn-manifest-names-missing-step/RNet_landmark": ("scan", "RNet-14"),
    "musicnn-empty-basename/MSD_vgg": ("incomplete", ""),
    "musicnn-empty-basename/MTT_musicnn": ("incomplete", ""),
    "tf-agents-missing-data/phase-final-3x3": ("incomplete", "ckpt-9200"),
    "open-spiel-two-runs-mixed/": ("scan", "checkpoint--1"),
    "flappybird-manifest-and-meta/": ("path.manifest-target", ""),
}  # fmt: skip


@pytest.mark.parametrize(("case", "record"), records("manifests"))
def test_every_directory_means_its_latest_complete_checkpoint(corpus: Path, case: str, record: Record) -> None:
    """By manifest where that holds; else by scan; and the reader says which."""
    directory, slash, _ = record["file"].rpartition("/")
    kind, name = ELSEWHERE.get(f"{case}/{directory}", ("manifest", record["model_checkpoint_path"].rpartition("/")[2]))
    path = f"{corpus / case}/{directory}{slash}".removesuffix("/")
    try:
        with openckpt.open(path) as ckpt:
            assert (ckpt.how.kind, ckpt.prefix) == (kind, f"{path}/{name}")
    except CheckpointError as error:
        assert error.code == kind


@pytest.mark.parametrize(("case", "record"), records("manifests"))
def test_every_manifest_opens_what_it_names(corpus: Path, case: str, record: Record) -> None:
    """The manifest itself is a path too; what it names and is not there is said, with what is."""
    path = corpus / case / record["file"]
    name = record["model_checkpoint_path"].replace("\\", "/").rpartition("/")[2]
    beside = path.parent / name
    if beside.is_file() or Path(f"{path.parent}/{name}.index").is_file():
        with openckpt.open(path) as ckpt:
            assert (ckpt.how.kind, ckpt.prefix) == ("manifest-file", f"{path.parent}/{name}")
    else:
        with pytest.raises(PathNotFoundError) as caught:
            openckpt.open(path)
        assert caught.value.code == "path.manifest-target"


@pytest.mark.parametrize(("case", "record"), records("saved_models"))
def test_every_saved_model_opens_as_its_variables(corpus: Path, case: str, record: Record) -> None:
    """Directory and saved_model.pb lead to variables/variables."""
    file = corpus / case / record["file"]
    for path in (file, file.parent):
        with openckpt.open(path) as ckpt:
            assert (ckpt.format, ckpt.how.kind) == ("bundle-v2", "saved-model")
            assert ckpt.prefix == f"{file.parent}/variables/variables"


@pytest.mark.parametrize(("case", "record"), records("not_checkpoints"))
def test_what_only_looks_like_a_checkpoint_is_called_by_its_name(corpus: Path, case: str, record: Record) -> None:
    """Pointers and error pages are refused with the code of what they are."""
    codes = {"git-lfs pointer": "detect.lfs-pointer", "XML error page": "detect.xml-error-page"}
    with pytest.raises(openckpt.CorruptionError) as caught:
        openckpt.open(corpus / case / record["file"])
    assert caught.value.code == codes[record["content"]]


def test_find_finds_every_checkpoint_and_nothing_else(corpus: Path) -> None:
    """Every record of the corpus, and only the pointers beside them, which are reported as damaged."""
    expected = {
        (f"{corpus}/{case['id']}/{record['prefix']}", FORMATS[record["format"]]): bool(
            record.get("tf_reads") or record.get("h5py_reads")
        )
        for case in corpus_cases()
        for record in case.get("checkpoints", ())
    }
    found = {(item.prefix, item.format): item for item in openckpt.find(corpus)}
    pointers = {key for key, item in found.items() if item.damage_code == "detect.lfs-pointer"}
    assert found.keys() - pointers == expected.keys()
    assert {key: found[key].complete for key in expected} == expected
    assert len(pointers) == 3 and not any(found[key].complete for key in pointers)


def test_find_tells_layouts_runs_and_manifests(corpus: Path) -> None:
    """Layouts are recognised, one checkpoint of each directory is the newest, manifests tell which are listed."""
    found = list(openckpt.find(corpus))
    layouts = {item.prefix[len(str(corpus)) + 1 :].partition("/")[0]: item.layout for item in found if item.layout}
    assert layouts["keras-bert-ckpt"] == "bert"
    assert layouts["tfx-estimator-dir"] == "estimator"
    assert layouts["tfx-tuner-prefix-named-checkpoint"] == "keras-tuner"
    assert layouts["tf-agents-checkpointer"] == layouts["tf-agents-missing-data"] == "tf-agents"
    saved_models = {case["id"] for case in corpus_cases() if case.get("saved_models")}
    assert {case for case, layout in layouts.items() if layout == "saved-model"} >= saved_models - {
        "onnx-regression-ckpt"
    }
    newest = Counter(item.run for item in found if item.newest)
    assert max(newest.values()) == 1
    steps = {item.step: item.listed for item in found if "/mtcnn-many-steps/" in item.prefix}
    assert [step for step, listed in steps.items() if listed] == [18]
    assert sum(item.forgotten for item in found if "/mtcnn-many-steps/" in item.prefix) == 17
    two = {item.format: item.listed for item in found if item.prefix.endswith("two-formats/example_critic.h5f")}
    assert two == {"bundle-v2": True, "hdf5": False}


def test_find_reports_what_is_no_checkpoint(corpus: Path) -> None:
    """Archives that are error pages and meta graphs without values are findings."""
    codes = Counter(item.code for item in survey(corpus) if not isinstance(item, FoundCheckpoint))
    assert codes == {"detect.xml-error-page": 5, "run.meta-only": 5}
