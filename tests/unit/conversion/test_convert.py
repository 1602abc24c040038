"""`openckpt.convert`: every format to every other, and back, without a bit lost; and what it refuses."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import openckpt
from openckpt.errors import CheckpointError, ConflictError, CorruptionError, NotFoundError, UnsupportedError
from openckpt.formats.bundle import Sliced, encode_bundle
from openckpt.formats.slicekeys import encode_slice_key
from openckpt.storage.disk import DISK
from openckpt.storage.writing import write_folder
from openckpt.testing import OrderFS
from trees import ODD_KEYS, differences, everything, numbers, objects, save_tree

TREE = everything()
TARGETS = {"tensorflow": "t", "dual": "d", "safetensors": "x.safetensors", "hdf5": "x.h5", "npz": "x.npz"}


@pytest.fixture(scope="module")
def forms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tree in every format, each converted from one checkpoint."""
    folder = tmp_path_factory.mktemp("forms")
    source = save_tree(folder / "source", TREE)
    for to, name in TARGETS.items():
        openckpt.convert(source, folder / name, to=to, durability="process-crash")
    return folder


@pytest.fixture
def small(tmp_path: Path) -> str:
    """A prefix of four tensors."""
    tree = {
        "dense/kernel": ("float32", np.linspace(-1, 1, 12, dtype="f4").reshape(3, 4)),
        "dense/bias": ("float32", np.zeros(4, "f4")),
        "step": ("int64", np.array(7, "i8")),
        "name": ("string", objects(b"net")),
    }
    return save_tree(tmp_path / "small", tree)


def refusal(*arguments: Any, **options: Any) -> CheckpointError:
    with pytest.raises(CheckpointError) as caught:
        openckpt.convert(*arguments, **options)
    return caught.value


def files_of(folder: Path, name: str) -> dict[str, bytes]:
    stem = name.partition(".")[0]
    names = [path for path in folder.iterdir() if path.name == name or path.name.startswith(f"{name}.")]
    return {path.name.replace(stem, "", 1): path.read_bytes() for path in names}


@pytest.mark.parametrize("to", TARGETS)
def test_every_format_reads_as_the_source(forms: Path, to: str) -> None:
    """Keys, types, shapes and bits: strings with zeros in safetensors, bfloat16 in npz, int4 in HDF5."""
    assert differences(forms / TARGETS[to], TREE) == []


@pytest.mark.parametrize("to", TARGETS)
@pytest.mark.parametrize("source", TARGETS)
def test_the_way_does_not_show_in_the_bytes(forms: Path, tmp_path: Path, source: str, to: str) -> None:
    """From whatever format the tensors come, equal tensors give equal files."""
    done = openckpt.convert(forms / TARGETS[source], tmp_path / TARGETS[to], to=to, durability="process-crash")

    assert files_of(tmp_path, TARGETS[to]) == files_of(forms, TARGETS[to])
    assert (done.converted, done.total, done.verified, done.already) == (len(TREE), len(TREE), True, False)


def test_a_safetensors_file_is_a_data_file_of_the_dual_checkpoint(forms: Path) -> None:
    """Byte for byte, saved or converted: one can be linked to the name of the other."""
    one = (forms / "x.safetensors").read_bytes()
    assert one == (forms / "d.data-00000-of-00001").read_bytes()
    assert one == (forms / "source.data-00000-of-00001").read_bytes()


def test_the_tensorflow_layout_is_that_of_the_golden_encoder(forms: Path) -> None:
    """What `encode_bundle` makes, and with it TensorFlow, for the same tensors in the order of their keys."""
    order = sorted(TREE, key=lambda key: key.encode("utf-8", "surrogateescape"))
    values: dict[str, Any] = {key: TREE[key][1] for key in order if TREE[key][0] not in ("string", "variant")}
    openckpt.convert(forms / "d", forms / "plain" / "t", to="tensorflow", exclude=["text/*", "opaque", "deep/text"])

    expected = encode_bundle(values, "t", dtypes={key: TREE[key][0] for key in values})
    assert {path.name: path.read_bytes() for path in (forms / "plain").iterdir()} == expected
    shutil.rmtree(forms / "plain")


def test_other_sources_convert_too(tmp_path: Path) -> None:
    """V1, slices, big-endian, an archive, a SavedModel: whatever `openckpt.open` opens."""
    from containers import tarred
    from openckpt.formats.v1.encoder import encode_v1

    whole = np.arange(12, dtype="f4").reshape(3, 4)
    pieces = Sliced((3, 4), {((0, 1), (0, 4)): whole[:1], ((1, 2), (0, 4)): whole[1:]})
    tree = {"cut": ("float32", whole), "flag": ("bool", np.array([True, False]))}
    write_folder(str(tmp_path), encode_bundle({"cut": pieces, "flag": tree["flag"][1]}, "sliced"))
    big = {"cut": whole, "flag": tree["flag"][1]}
    write_folder(str(tmp_path), encode_bundle(big, "big", big_endian=True))
    (tmp_path / "box.tar.gz").write_bytes(tarred(encode_bundle(big, "model")))
    write_folder(str(tmp_path), encode_v1(big, "old"))
    variables = encode_bundle(big, "variables")
    write_folder(
        str(tmp_path / "saved"), {"saved_model.pb": b"", **{f"variables/{n}": b for n, b in variables.items()}}
    )
    for source in ("sliced", "big", "box.tar.gz", "old", "saved"):
        target = tmp_path / f"{source}-converted"
        assert openckpt.convert(tmp_path / source, target).converted == 2
        assert differences(target, tree) == []


@pytest.mark.parametrize("to", TARGETS)
def test_every_commit_keeps_the_order_of_a_durable_save(tmp_path: Path, small: str, to: str) -> None:
    """Names after synced bytes, the index after the data, no lock and no temporary file at the end."""
    store = OrderFS(DISK)
    target = tmp_path / "out" / TARGETS[to]
    done = openckpt.convert(small, target, to=to, store=store)
    again = openckpt.convert(small, target, to=to, cast="bfloat16", overwrite=True, store=store)

    assert done.durability == again.durability == "power-loss"
    assert not [path for path in (tmp_path / "out").iterdir() if "openckpt-" in path.name]
    with openckpt.open(target) as ckpt:
        assert ckpt.specs["dense/kernel"].dtype == "bfloat16"


@pytest.mark.parametrize("to", TARGETS)
def test_a_finished_target_is_not_written_again(tmp_path: Path, small: str, to: str) -> None:
    """The same command twice: the second time everything is compared and nothing is touched."""
    target = tmp_path / "out" / TARGETS[to]
    first = openckpt.convert(small, target, to=to)
    before = {path: os.stat(path).st_mtime_ns for path in first.files}
    second = openckpt.convert(small, target, to=to)

    assert (first.already, second.already, second.durability) == (False, True, "power-loss")
    assert (second.converted, second.total, sorted(second.files)) == (4, 4, sorted(first.files))
    assert {path: os.stat(path).st_mtime_ns for path in first.files} == before


@pytest.mark.parametrize("to", TARGETS)
def test_another_target_is_refused_and_replaced_on_request(tmp_path: Path, small: str, to: str) -> None:
    """One changed value is enough to be something else."""
    target = tmp_path / "out" / TARGETS[to]
    openckpt.convert(small, target, to=to, cast="float16")
    error = refusal(small, target, to=to)

    assert (error.code, type(error)) == ("convert.exists", ConflictError)
    done = openckpt.convert(small, target, to=to, overwrite=True)
    assert not done.already
    with openckpt.open(target) as ckpt, openckpt.open(small) as source:
        assert np.array_equal(ckpt["dense/kernel"], source["dense/kernel"])


def test_a_target_of_other_layout_or_other_files_is_another(tmp_path: Path, small: str) -> None:
    """The tensors are equal; the files are not what was asked for."""
    target = tmp_path / "out"
    openckpt.convert(small, target, to="tensorflow")
    assert refusal(small, target, to="dual").code == "convert.exists"
    openckpt.convert(small, target, to="dual", overwrite=True)
    assert refusal(small, target, to="tensorflow").code == "convert.exists"
    assert refusal(small, target, max_shard_size=50).code == "convert.exists"
    assert openckpt.convert(small, target).already


def test_damage_in_a_finished_target_is_something_else(tmp_path: Path, small: str) -> None:
    """A target is compared by its bytes, not by its header."""
    target = tmp_path / "x.npz"
    openckpt.convert(small, target)
    data = bytearray(target.read_bytes())
    data[data.index(b"\xcd\xcc") if b"\xcd\xcc" in data else 300] ^= 1
    target.write_bytes(bytes(data))
    assert refusal(small, target).code == "convert.exists"
    assert openckpt.convert(small, target, overwrite=True).converted == 4


def test_filters_choose_and_are_told(tmp_path: Path, small: str) -> None:
    """``*`` crosses ``/``; exclusion wins; the result names what was left out."""
    done = openckpt.convert(small, tmp_path / "a", include=["dense/*", "st?p", "nothing"], exclude="*bias")

    assert (done.converted, done.total) == (2, 4)
    assert sorted(done.filtered) == ["dense/bias", "name"]
    assert done.notes == ("the pattern 'nothing' matches no key",)
    with openckpt.open(tmp_path / "a") as ckpt:
        assert sorted(ckpt) == ["dense/kernel", "step"]


def test_nothing_to_convert_is_an_error(tmp_path: Path, small: str) -> None:
    """0 of M is never a success."""
    error = refusal(small, tmp_path / "out", include="zzz")

    assert (error.code, isinstance(error, NotFoundError)) == ("convert.nothing", True)
    assert "0 of 4" in error.message
    assert not (tmp_path / "out.index").exists()


def test_casts_are_made_and_reported(tmp_path: Path, small: str) -> None:
    """All floats, then one type more precisely; what the numbers lost is told."""
    done = openckpt.convert(small, tmp_path / "a", cast=["bfloat16", "int64=int32"])

    with openckpt.open(small) as source, openckpt.open(tmp_path / "a") as ckpt:
        before = source["dense/kernel"]
        assert ckpt.specs["dense/kernel"].dtype == "bfloat16"
        assert np.array_equal(ckpt["dense/kernel"], before.astype(ml_dtypes.bfloat16))
        assert (ckpt.specs["step"].dtype, int(ckpt["step"])) == ("int32", 7)
    report = {cast.source: cast for cast in done.casts}
    worst = float(np.max(np.abs(before - before.astype(ml_dtypes.bfloat16).astype("f4"))))
    assert report["float32"].largest_error == worst > 0
    assert (report["float32"].tensors, report["float32"].at, report["float32"].overflows) == (2, "dense/kernel", 0)
    assert (report["int64"].largest_error, report["int64"].at) == (0.0, None)


@pytest.mark.parametrize(
    ("source", "target", "values", "error", "overflows"),
    [
        ("float64", "float32", [1.0, 1e300, np.nan, np.inf], 0.0, 1),
        ("float32", "float16", [1.0, 70000.0, 2049.0, -np.inf], 1.0, 1),
        ("float32", "float8_e4m3fn", [448.0, 1e6, 0.0], 0.0, 1),
        ("float16", "float64", [0.1, -2.0], 0.0, 0),
        ("bfloat16", "float16", [1.0, 1e38], 0.0, 1),
        ("complex128", "complex64", [1 + 2j, 3 - 1j], 0.0, 0),
        ("uint8", "int64", [255, 0], 0.0, 0),
    ],
)
def test_what_a_cast_loses(
    tmp_path: Path, source: str, target: str, values: list[Any], error: float, overflows: int
) -> None:
    """The largest difference of finite values, and how many did not stay finite."""
    from openckpt.formats.dtypes import BY_NAME

    value = np.array(values).astype(BY_NAME[source].numpy())
    save_tree(tmp_path / "a", {"x": (source, value), "empty": (source, value[:0])})
    done = openckpt.convert(tmp_path / "a", tmp_path / "b", cast={source: target})

    (report,) = done.casts
    assert (report.largest_error, report.overflows, report.tensors) == (error, overflows, 2)
    with openckpt.open(tmp_path / "b") as ckpt, np.errstate(over="ignore"):
        assert ckpt["x"].tobytes() == value.astype(BY_NAME[target].numpy()).tobytes()


@pytest.mark.parametrize("value", [[300], [-129], [2**40]])
def test_an_integer_that_does_not_fit_stops_the_conversion(tmp_path: Path, value: list[int]) -> None:
    """Wrapping around would be silent damage; nothing is left of the target."""
    save_tree(tmp_path / "a", {"x": ("int64", np.array(value)), "y": ("int64", np.arange(3))})
    error = refusal(tmp_path / "a", tmp_path / "out" / "b", cast="int64=int8")

    assert (error.code, error.where.key) == ("convert.cast", "x")
    assert not list((tmp_path / "out").glob("*"))


def test_the_sign_counts_where_bits_are_equal(tmp_path: Path) -> None:
    """2**63 as int64 has the same bits, and is another number."""
    save_tree(tmp_path / "a", {"x": ("uint64", np.array([2**63], "u8"))})
    assert refusal(tmp_path / "a", tmp_path / "b", cast="uint64=int64").code == "convert.cast"


@pytest.mark.parametrize(
    "cast", ["int8", "float32=int32", "string=float32", "float32=nothing", "bool=int8", "qint8=int8"]
)
def test_a_cast_to_another_kind_is_refused(tmp_path: Path, small: str, cast: str) -> None:
    """Before anything is read."""
    assert refusal(small, tmp_path / "b", cast=cast).code == "convert.cast"


def test_what_cannot_be_read_is_refused_by_name_before_anything_is_written(tmp_path: Path) -> None:
    """And converted without it when the caller says so."""
    np.savez(tmp_path / "a.npz", fine=np.zeros(2), structured=np.zeros(2, [("a", "i4")]))
    error = refusal(tmp_path / "a.npz", tmp_path / "out" / "b")

    assert (error.code, isinstance(error, UnsupportedError)) == ("convert.unreadable", True)
    assert "'structured'" in error.message
    assert not (tmp_path / "out").exists()
    assert openckpt.convert(tmp_path / "a.npz", tmp_path / "b", exclude="structured").converted == 1


SLICE_KEY = encode_slice_key(b"w", ((0, 1),)).decode("utf-8", "surrogateescape")


@pytest.mark.parametrize("to", ["dual", "tensorflow", "safetensors"])
def test_a_key_that_a_checkpoint_holds_is_taken(tmp_path: Path, to: Any) -> None:
    """Also one that begins like the key of a slice and is none."""
    tree = {"\0slice": ("float32", numbers("float32", (2,)))}
    done = openckpt.convert(save_tree(tmp_path / "a", tree), tmp_path / "b", to=to)
    assert differences(done.target, tree) == []


@pytest.mark.parametrize("key", ["", SLICE_KEY, "k" * ((1 << 20) + 1)])
def test_a_key_that_a_checkpoint_cannot_hold_is_refused(tmp_path: Path, key: str) -> None:
    """npz members may be called anything; the index of a checkpoint has rules."""
    from openckpt.conversion.planning import plan_conversion

    class Reader:
        prefix, format, reader = "x", "npz", None
        specs = {key: openckpt.TensorSpec("float32", (), 4)}

        def __len__(self) -> int:
            return 1

    with pytest.raises(UnsupportedError) as caught:
        plan_conversion(Reader(), "dual", casts={})  # type: ignore[arg-type]
    assert caught.value.code == "convert.key"
    assert plan_conversion(Reader(), "hdf5", casts={}).rows[0].key == key  # type: ignore[arg-type]


def test_the_source_itself_is_no_target(tmp_path: Path, small: str) -> None:
    """Also not when overwriting was asked for."""
    error = refusal(small, small, cast="float16", overwrite=True)
    assert error.code == "convert.same"
    assert openckpt.convert(small, small).already  # it is what would have been written


@pytest.mark.parametrize("index", [True, False])
@pytest.mark.parametrize("link", ["symbolic", "hard"])
def test_a_data_file_under_another_name_is_the_source_too(tmp_path: Path, index: bool, link: str) -> None:
    """The checkpoint whose data file it is may not be replaced by what is read from it."""
    prefix = save_tree(tmp_path / "ckpt", {"w": ("float32", numbers("float32", (4,)))})
    data = Path(f"{prefix}.data-00000-of-00001")
    name = tmp_path / "name.safetensors"
    name.symlink_to(data) if link == "symbolic" else name.hardlink_to(data)
    if not index:
        os.remove(f"{prefix}.index")
    assert refusal(str(name), prefix, cast="float16", overwrite=True).code == "convert.same"
    assert openckpt.open(name).specs["w"].dtype == "float32"


@pytest.mark.parametrize("target", ["x.keras", "x.pt", "x.tar.gz", "x.json", "dir/", "."])
def test_a_target_that_says_nothing_sensible_is_refused(tmp_path: Path, small: str, target: str) -> None:
    """A suffix is a promise."""
    assert refusal(small, os.path.join(tmp_path, target)).code == "convert.target"


@pytest.mark.parametrize("name", ["x", "x.safetensors", "x.npz", "x.h5"])
def test_a_target_with_more_tensors_is_not_what_is_asked_for(tmp_path: Path, small: str, name: str) -> None:
    """Every tensor that is wanted is there and equal, and one more: an earlier conversion had no filter."""
    whole = openckpt.convert(small, tmp_path / name)
    without = next(iter(openckpt.open(small).specs))
    assert refusal(small, tmp_path / name, exclude=without).code == "convert.exists"
    done = openckpt.convert(small, tmp_path / name, exclude=without, overwrite=True)
    assert (done.already, done.converted) == (False, whole.converted - 1)
    assert without not in openckpt.open(done.target)


@pytest.mark.parametrize("target", ["s3://bucket/x", "gs://bucket/x.npz", "file:///x.safetensors"])
def test_a_url_is_no_target(tmp_path: Path, small: str, target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would become a directory of that name."""
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.iterdir())
    assert refusal(small, target).code == "convert.target"
    assert sorted(tmp_path.iterdir()) == before


def test_a_directory_is_no_target_file(tmp_path: Path, small: str) -> None:
    """It would have to go first."""
    (tmp_path / "x.h5").mkdir()
    assert refusal(small, tmp_path / "x.h5", overwrite=True).code == "convert.target"


def test_a_directory_is_no_target_prefix(tmp_path: Path, small: str) -> None:
    """What is opened under its name would be what lies in it; a link to one is one. A checkpoint of that name may be replaced."""
    (tmp_path / "out").mkdir()
    (tmp_path / "link").symlink_to("out")
    assert refusal(small, tmp_path / "out").code == "convert.target"
    assert refusal(small, tmp_path / "link", overwrite=True).code == "convert.target"
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.startswith(("out", "link"))) == ["link", "out"]
    openckpt.save(tmp_path / "out", {"w": 1})
    assert openckpt.convert(small, tmp_path / "out", overwrite=True).converted == len(openckpt.load(small))


@pytest.mark.parametrize(
    "options", [{"max_memory": 1000}, {"max_shard_size": 0}, {"max_shard_size": 100, "to": "npz"}, {"to": "pickle"}]
)
def test_arguments_that_make_no_sense(tmp_path: Path, small: str, options: dict[str, Any]) -> None:
    """ValueError for numbers, convert.target for formats."""
    with pytest.raises((ValueError, UnsupportedError)):
        openckpt.convert(small, tmp_path / "x", **options)


def test_the_index_or_a_data_file_names_the_prefix(tmp_path: Path, small: str) -> None:
    """As it does where checkpoints are read."""
    assert openckpt.convert(small, tmp_path / "a.index").target == str(tmp_path / "a")
    assert openckpt.convert(small, tmp_path / "a.data-00000-of-00001").already


def test_a_checkpoint_in_several_data_files(tmp_path: Path) -> None:
    """Large tensors are cut as TensorFlow cuts them; they read whole."""
    tree = {f"k{n}": ("float32", numbers("float32", (10, 10), n)) for n in range(5)}
    source = save_tree(tmp_path / "a", tree)
    for to in ("dual", "tensorflow"):
        done = openckpt.convert(source, tmp_path / to, to=to, max_shard_size=500)
        assert len(done.files) > 3
        assert differences(tmp_path / to, tree) == []
        assert openckpt.convert(source, tmp_path / to, to=to, max_shard_size=500).already


def test_notes_tell_what_stays_behind(tmp_path: Path, small: str) -> None:
    """The graph of filtered checkpoints, Keras' configuration, foreign metadata."""
    from safetensors.numpy import save_file

    save_file({"a": np.zeros(2)}, tmp_path / "a.safetensors", metadata={"format": "np", "license": "mit"})
    (note,) = openckpt.convert(tmp_path / "a.safetensors", tmp_path / "b").notes
    assert "'license'" in note


def test_verification_notices_a_disk_that_lies(tmp_path: Path, small: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The target is read again by a reader that knows nothing of the writing."""
    from openckpt.conversion import converting

    def damaged(store: Any, path: str, to: Any) -> Any:
        data = bytearray(Path(path).read_bytes())
        at = bytes(data).index(np.float32(-1).tobytes())
        data[at] ^= 1
        Path(path).write_bytes(bytes(data))
        return open_output(store, path, to)

    open_output = converting.open_output
    for name, code in (
        ("x.h5", "convert.verify"),
        ("x.npz", "archive.crc-mismatch"),
        ("x.safetensors", "bundle.crc-mismatch"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(converting, "open_output", damaged)
            with pytest.raises(CorruptionError) as caught:
                openckpt.convert(small, tmp_path / name)
        assert caught.value.code == code


def test_progress_counts_bytes(tmp_path: Path, small: str) -> None:
    """First the conversion, then the check, both to their end."""
    told: list[tuple[str, int, int | None]] = []
    openckpt.convert(small, tmp_path / "b", progress=lambda *report: told.append(report))

    assert [what for what, _, _ in told] == ["converting"] * sum(w == "converting" for w, _, _ in told) + [
        "checking"
    ] * sum(w == "checking" for w, _, _ in told)
    assert all(done <= (total or 0) for _, done, total in told)
    assert told[-1][1] == told[-1][2]
    assert (
        next(done for what, done, _ in told if what == "checking") == 0
    )  # before the result is opened, which may take long


def test_the_result_is_json(tmp_path: Path, small: str) -> None:
    """As the command line prints it."""
    done = openckpt.convert(small, tmp_path / "b", cast="float16")
    assert json.loads(json.dumps(done.to_json()))["casts"][0]["target"] == "float16"


def test_odd_keys_survive_in_stock_names(forms: Path) -> None:
    """Nothing of a key reaches the file system: no file but those of the targets exists."""
    assert len(ODD_KEYS) > 20
    expected = {"source.index", "source.data-00000-of-00001", "t.index", "t.data-00000-of-00001", "d.index"}
    expected |= {"d.data-00000-of-00001", "x.safetensors", "x.h5", "x.npz"}
    assert {path.name for path in forms.iterdir()} == expected


@pytest.mark.parametrize("to", TARGETS)
def test_the_object_graph_comes_along(tmp_path: Path, to: str) -> None:
    """It is one of the tensors; whatever the file, `CheckpointReader.graph` gives it, and the doctor has nothing to say."""
    from openckpt.formats.objectgraph import encode_object_graph, parse_object_graph
    from openckpt.formats.spec import GRAPH_KEY

    graph = encode_object_graph(parse_object_graph(b"\x0a\x0b\x0a\x09\x08\x01\x12\x05child\x0a\x00", "x"))
    tree = {GRAPH_KEY: ("string", objects(graph, shape=())), "w": ("float32", np.zeros(2, "f4"))}
    openckpt.convert(save_tree(tmp_path / "a", tree), tmp_path / "out" / TARGETS[to], to=to)

    with openckpt.open(tmp_path / "out" / TARGETS[to]) as ckpt:
        assert ckpt.graph is not None
        assert len(ckpt.graph.nodes) == 2
    report = openckpt.diagnose(tmp_path / "out" / TARGETS[to])
    assert {finding.severity for finding in report.findings} <= {"note"}


@pytest.mark.parametrize("name", ["x.npz", "m.safetensors"])
def test_damage_in_the_source_is_not_blamed_on_the_target(tmp_path: Path, small: str, name: str) -> None:
    """The comparison reads both; whose bytes are wrong decides what is said."""
    options: dict[str, Any] = {"max_shard_size": 60} if name == "m.safetensors" else {}
    done = openckpt.convert(small, tmp_path / "out" / name, **options)
    if options:
        Path(done.target).unlink()
    data = bytearray(Path(f"{small}.data-00000-of-00001").read_bytes())
    at = bytes(data).index(np.float32(-1).tobytes())
    data[at] ^= 1
    Path(f"{small}.data-00000-of-00001").write_bytes(bytes(data))

    for overwrite in (False, True):
        error = refusal(small, tmp_path / "out" / name, overwrite=overwrite, **options)
        assert (error.code, error.where.key) == ("bundle.crc-mismatch", "dense/kernel")


def test_strangers_beside_the_target_are_not_its_files(tmp_path: Path, small: str) -> None:
    """A data file of another count, left by somebody, stays and is not told."""
    stranger = tmp_path / "out" / "a.data-00000-of-00001"
    stranger.parent.mkdir()
    stranger.write_bytes(b"stranger")
    done = openckpt.convert(small, tmp_path / "out" / "a")

    assert stranger.read_bytes() == b"stranger"
    assert str(stranger) not in done.files
    assert len(done.files) == 3
    assert openckpt.convert(small, tmp_path / "out" / "a").already
