"""`CheckpointReader`: a checkpoint as a mapping."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

import openckpt
from containers import zipped
from openckpt.errors import CheckpointError, CorruptionError
from openckpt.formats.bundle import encode_bundle
from openckpt.formats.spec import no_such_key
from openckpt.formats.v1 import encode_v1

VALUES = {
    "b/bias": np.arange(3, dtype=np.float64),
    "a/kernel": np.arange(12, dtype=np.float32).reshape(3, 4),
    "step": np.array(42, np.int64),
    "words": np.array([b"x", b"yz"], dtype=object),
}
SAVE_COUNTER = "save_counter/.ATTRIBUTES/VARIABLE_VALUE"


def write(directory: Path, name: str, values: dict[str, np.ndarray] = VALUES, **options: int) -> Path:  # type: ignore[type-arg]
    for file, data in encode_bundle(values, name, **options).items():  # type: ignore[arg-type]
        (directory / file).write_bytes(data)
    return directory / name


def test_it_is_a_mapping_in_table_order(tmp_path: Path) -> None:
    """Keys come in table order; values, items, get and len are those of a mapping."""
    with openckpt.open(write(tmp_path, "ckpt-7")) as ckpt:
        assert list(ckpt) == list(ckpt.keys()) == ["a/kernel", "b/bias", "step", "words"]
        assert len(ckpt) == 4
        assert ckpt["a/kernel"].tolist() == VALUES["a/kernel"].tolist()
        assert ckpt["step"].shape == () and ckpt["step"] == 42
        assert ckpt["words"].tolist() == [b"x", b"yz"]
        assert [array.dtype.name for array in ckpt.values()] == ["float32", "float64", "int64", "object"]
        assert dict(ckpt.items()).keys() == VALUES.keys()
        assert ckpt.get("absent") is None and "absent" not in ckpt and 3 not in ckpt


def test_it_describes_itself(tmp_path: Path) -> None:
    """Format, prefix, step, files, specs and how it was found."""
    prefix = write(tmp_path, "ckpt-7", shards=2)
    with openckpt.open(tmp_path) as ckpt:
        assert (ckpt.format, ckpt.prefix, ckpt.step) == ("bundle-v2", str(prefix), 7)
        assert ckpt.files == tuple(
            f"{prefix}{suffix}" for suffix in (".index", ".data-00000-of-00002", ".data-00001-of-00002")
        )
        assert ckpt.specs["a/kernel"] == ("float32", (3, 4), 48)
        assert list(ckpt.specs) == list(ckpt) and len(ckpt.specs) == 4
        assert list(ckpt.specs.items()) == [(key, ckpt.specs[key]) for key in ckpt]
        assert ckpt.how.kind == "scan" and "only complete" in str(ckpt.how)
        assert ckpt.graph is None and ckpt.siblings == ()
        assert repr(ckpt) == f"<CheckpointReader {str(prefix)!r} (bundle-v2)>"
        assert ckpt.locate("b/bias")[0].nbytes == 24


def test_missing_key_is_a_key_error_that_names_the_nearest(tmp_path: Path) -> None:
    """A typing error gets its suggestion."""
    with openckpt.open(write(tmp_path, "m")) as ckpt, pytest.raises(KeyError) as caught:
        ckpt["a/kernal"]
    assert isinstance(caught.value, openckpt.NotFoundError)
    assert "'a/kernel'" in str(caught.value)


def test_path_of_a_variable_is_near_its_key() -> None:
    """Nobody types /.ATTRIBUTES/VARIABLE_VALUE; a mistyped path of a variable still gets its suggestion."""
    keys = ["model/dense/bias/.ATTRIBUTES/VARIABLE_VALUE", "model/dense/kernel/.ATTRIBUTES/VARIABLE_VALUE"]
    message = no_such_key("m", "model/dense/kernal", keys).message
    assert message.startswith(f"no such key; nearest names: {keys[1]!r}")


def test_get_of_a_missing_key_makes_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Asking for thousands of keys that are not there looks for no near name of any."""
    monkeypatch.setattr("openckpt.formats.bundle.index.no_such_key", None)
    with openckpt.open(write(tmp_path, "m")) as ckpt:
        assert ckpt.get("nope") is None and ckpt.get("nope", 7) == 7
        assert ckpt.specs.get("nope") is None and ckpt.specs.get("nope", 7) == 7
        assert ckpt.get("a/kernel") is not None and ckpt.specs.get("a/kernel") == ckpt.specs["a/kernel"]


def test_read_many_reads_all_some_or_into_given_arrays(tmp_path: Path) -> None:
    """Without keys everything is read; ``out`` says which and where to."""
    with openckpt.open(write(tmp_path, "m")) as ckpt:
        assert ckpt.read_many().keys() == VALUES.keys()
        assert ckpt.read_many(["step"], threads=1)["step"] == 42
        out = {"b/bias": np.zeros(3)}
        assert ckpt.read_many(out=out)["b/bias"] is out["b/bias"]
        assert out["b/bias"].tolist() == [0, 1, 2]


def test_views_stay_valid_after_close(tmp_path: Path) -> None:
    """A view holds the file's bytes itself."""
    with openckpt.open(write(tmp_path, "m")) as ckpt:
        view = ckpt.view("a/kernel")
    assert not view.flags.writeable
    assert view.tolist() == VALUES["a/kernel"].tolist()


def test_after_close_everything_says_closed(tmp_path: Path) -> None:
    """Close is idempotent; every later access raises one clear error, also through specs that were taken before."""
    ckpt = openckpt.open(write(tmp_path, "m"))
    specs = ckpt.specs
    items, values = specs.items(), specs.values()
    ckpt.close()
    ckpt.close()
    assert ckpt.closed and "closed" in repr(ckpt)
    accesses = [
        lambda: ckpt["step"], lambda: list(ckpt), lambda: len(ckpt), lambda: "step" in ckpt, lambda: ckpt.specs,
        lambda: ckpt.view("a/kernel"), lambda: ckpt.read_many(), lambda: ckpt.graph, lambda: ckpt.locate("step"),
        lambda: ckpt.__enter__(), lambda: list(ckpt.validate()), lambda: specs["step"], lambda: list(specs),
        lambda: len(specs), lambda: "step" in specs, lambda: specs.get("step"), lambda: list(items), lambda: list(values),
    ]  # fmt: skip
    for access in accesses:
        with pytest.raises(CheckpointError) as caught:
            access()
        assert caught.value.code == "path.closed"
    assert ckpt.step is None and ckpt.format == "bundle-v2"  # what was known stays known


def test_archive_is_closed_with_the_checkpoint(tmp_path: Path) -> None:
    """No descriptor stays open, neither of files nor of archives."""
    (tmp_path / "a.zip").write_bytes(zipped(encode_bundle(VALUES, "m")))
    descriptors = Path("/proc/self/fd")
    before = len(list(descriptors.iterdir())) if descriptors.exists() else 0
    for _ in range(5):
        with openckpt.open(tmp_path / "a.zip") as ckpt:
            assert ckpt["step"] == 42
        with pytest.raises(openckpt.PathNotFoundError):
            openckpt.open(tmp_path / "a.zip!absent")
    if descriptors.exists():
        assert len(list(descriptors.iterdir())) == before


@pytest.mark.parametrize(
    ("name", "values", "step"),
    [
        ("ckpt-7", {SAVE_COUNTER: np.array(9, np.int64)}, 7),
        ("checkpoint--1", {}, -1),
        ("ckpt", {SAVE_COUNTER: np.array(9, np.int64), "global_step": np.array(5, np.int64)}, 9),
        ("model.ckpt", {"global_step": np.array(-5, np.int64)}, -5),
        ("model.ckpt", {"global_step": np.array(5, np.int32)}, 5),
        ("model.ckpt", {"global_step": np.array([5], np.int64)}, None),
        ("model.ckpt", {"global_step": np.array(5.0)}, None),
        ("model.ckpt", {}, None),
    ],
)
def test_step_by_name_then_by_save_counter_then_by_global_step(
    tmp_path: Path,
    name: str,
    values: dict[str, np.ndarray],
    step: int | None,  # type: ignore[type-arg]
) -> None:
    """The name decides; then what the checkpoint says of itself; only integer scalars count."""
    with openckpt.open(write(tmp_path, name, {**VALUES, **values})) as ckpt:
        assert ckpt.step == step


def test_step_of_a_v1_shard_is_not_its_number(tmp_path: Path) -> None:
    """``export-00000-of-00001`` has no step 1; ``model.ckpt-5-?????-of-00002`` has step 5."""
    for name, step in (("export", None), ("model.ckpt-5", 5)):
        for file, data in encode_v1({"w": np.float32([1])}, name, shards=1).items():
            (tmp_path / file).write_bytes(data)
            with openckpt.open(tmp_path / file) as ckpt:
                assert ckpt.step == step


def test_step_that_cannot_be_read_is_none(tmp_path: Path) -> None:
    """A damaged save counter does not keep the rest from being listed."""
    prefix = write(tmp_path, "m", {SAVE_COUNTER: np.array(9, np.int64), "w": np.float32([1])})
    data = tmp_path / "m.data-00000-of-00001"
    data.write_bytes(b"\x01" * 8 + data.read_bytes()[8:])
    with openckpt.open(prefix) as ckpt:
        assert ckpt.step is None
        assert list(ckpt) == [SAVE_COUNTER, "w"]
    data.unlink()
    with openckpt.open(prefix) as ckpt:
        assert ckpt.step is None


def test_big_endian_step(tmp_path: Path) -> None:
    """The save counter of a big-endian host is read in its order."""
    with openckpt.open(write(tmp_path, "m", {"global_step": np.array(258, np.int64)}, big_endian=True)) as ckpt:
        assert ckpt.step == 258


def test_verify_is_a_choice(tmp_path: Path) -> None:
    """Checksums are checked unless the caller says otherwise, when opening or when reading."""
    prefix = write(tmp_path, "m")
    data = tmp_path / "m.data-00000-of-00001"
    data.write_bytes(b"\xff" + data.read_bytes()[1:])
    with openckpt.open(prefix) as ckpt:
        with pytest.raises(CorruptionError) as caught:
            ckpt["b/bias"]
        assert (caught.value.code, caught.value.where.key) == ("bundle.crc-mismatch", "b/bias")
        assert ckpt.read("b/bias", verify=False).shape == (3,)
    with openckpt.open(prefix, verify=False) as ckpt:
        assert ckpt["b/bias"].shape == (3,)
        with pytest.raises(CorruptionError):
            ckpt.read_many(verify=True)


def test_threads_share_a_reader_and_may_close_it(tmp_path: Path) -> None:
    """Reads of many threads give whole values; a close meanwhile lets running reads finish."""
    values = {f"w{i}": np.full(1000, i, np.float32) for i in range(40)}
    ckpt = openckpt.open(write(tmp_path, "m", values))
    wrong: list[object] = []
    started = threading.Barrier(5)

    def work() -> None:
        started.wait()
        while True:
            for i in range(40):
                try:
                    if not (ckpt[f"w{i}"] == i).all():
                        wrong.append(i)
                except CheckpointError as error:
                    if error.code != "path.closed":
                        wrong.append(error)
                    return
                except BaseException as error:  # what a thread raises must not be lost
                    wrong.append(error)
                    return

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    started.wait()
    for i in range(40):
        assert ckpt[f"w{i}"][0] == i
    ckpt.close()
    for thread in threads:
        thread.join()
    assert wrong == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_it_works_in_the_children_after_a_fork(tmp_path: Path) -> None:
    """Parent and child read from the same open checkpoint, each at its own place."""
    script = (
        "import os, sys, openckpt\n"
        "ckpt = openckpt.open(sys.argv[1])\n"
        "ckpt['step']\n"
        "child = os.fork()\n"
        "ok = all(ckpt['a/kernel'].sum() == 66 for _ in range(200))\n"
        "if child == 0: os._exit(0 if ok else 1)\n"
        "sys.exit(0 if ok and os.waitpid(child, 0)[1] == 0 else 1)\n"
    )
    assert subprocess.run([sys.executable, "-c", script, str(write(tmp_path, "m"))], check=False).returncode == 0


def test_listing_imports_no_numpy(tmp_path: Path) -> None:
    """Opening by directory, listing every spec and the step need neither numpy nor protobuf nor h5py."""
    write(tmp_path, "m", {**VALUES, "global_step": np.array(5, np.int64)})
    script = (
        "import sys, openckpt\n"
        "with openckpt.open(sys.argv[1]) as ckpt:\n"
        "    assert len(list(ckpt.specs.items())) == 5 and ckpt.step == 5 and 'step' in ckpt\n"
        "assert list(openckpt.find(sys.argv[1])) and openckpt.latest_checkpoint(sys.argv[1]) is None\n"
        "heavy = {'numpy', 'google.protobuf', 'h5py', 'rich', 'difflib', 'asyncio'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)\n"
    )
    result = subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=False, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def test_listing_a_prefix_imports_what_it_uses_only(tmp_path: Path) -> None:
    """What costs milliseconds and a listing can do without: dataclasses (which bring inspect), findings, other formats."""
    script = (
        "import sys, openckpt\n"
        "with openckpt.open(sys.argv[1]) as ckpt:\n"
        "    assert len(list(ckpt.specs.items())) == 5 and ckpt.step is None\n"
        "needless = {'dataclasses', 'inspect', 'json', 'openckpt.findings', 'openckpt.codes', 'openckpt.formats.slicekeys',\n"
        "            'openckpt.opening.grouping', 'openckpt.storage.archive'} & set(sys.modules)\n"
        "sys.exit(f'imported {needless}' if needless else 0)\n"
    )
    prefix = str(write(tmp_path, "m", {**VALUES, "c": np.array(5, np.int64)}))
    result = subprocess.run([sys.executable, "-c", script, prefix], check=False, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def test_replaced_while_open(tmp_path: Path) -> None:
    """What was opened stays what it was although the trainer saves over it."""
    prefix = write(tmp_path, "m", {"w": np.float32([1])})
    with openckpt.open(prefix) as ckpt:
        for file, data in encode_bundle({"w": np.float32([2])}, "m").items():
            (tmp_path / "new").write_bytes(data)
            (tmp_path / "new").rename(tmp_path / file)
        assert ckpt["w"].tolist() == [1]
    with openckpt.open(prefix) as ckpt:
        assert ckpt["w"].tolist() == [2]


def test_system_errors_say_what_we_were_doing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An OSError passes through untouched, with a note."""
    from openckpt.storage.local import LocalStore

    def refuse(self: object, path: str) -> None:
        raise PermissionError(13, "Permission denied", path)

    prefix = write(tmp_path, "m")
    monkeypatch.setattr(LocalStore, "open", refuse)
    with pytest.raises(PermissionError) as caught:
        openckpt.open(prefix)
    assert any(str(prefix) in note for note in caught.value.__notes__)
