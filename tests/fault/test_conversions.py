"""A conversion is killed, refused and interrupted at every call: the target is whole or not there, and the next run ends it."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import openckpt
from openckpt.conversion.proving import open_output
from openckpt.conversion.targets import choose_format
from openckpt.storage.disk import DISK
from openckpt.storage.writable import WritableStore
from openckpt.testing import FaultyFS, PowerLossFS, count_calls, run_killed
from trees import differences, numbers, objects, same, save_tree

TREE = {f"k{n}": ("float32", numbers("float32", (5,), n)) for n in range(4)}
TREE["words"] = "string", objects(b"a", b"b\0")
OLD = {key: (dtype, -value if dtype == "float32" else value) for key, (dtype, value) in TREE.items()}
TARGETS = {"prefix": {}, "x.safetensors": {}, "x.h5": {}, "x.npz": {}, "m.safetensors": {"max_shard_size": 45}}


@pytest.fixture
def tmp_path(quick_path: Path) -> Path:
    return quick_path


@pytest.fixture
def source(tmp_path: Path) -> str:
    return save_tree(tmp_path / "source", TREE)


def converter(source: str, target: Path, options: dict[str, Any]) -> Callable[[WritableStore], openckpt.Conversion]:
    return lambda store: openckpt.convert(source, target, store=store, **options)


def path_of(target: Path, options: dict[str, Any]) -> Path:
    return target if "max_shard_size" not in options else target.with_suffix(".safetensors.index.json")


def is_there(target: Path, options: dict[str, Any]) -> bool:
    path = path_of(target, options)
    return path.exists() or path.with_name(f"{path.name}.index").exists()


def leftovers(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if "openckpt-" in path.name] if folder.exists() else []


@pytest.mark.parametrize("name", TARGETS)
def test_killed_at_every_call(tmp_path: Path, source: str, name: str) -> None:
    """Whole or absent; the same command again ends it, with the bytes of an undisturbed run, and sweeps."""
    options = TARGETS[name]
    calm = openckpt.convert(source, tmp_path / "calm" / name, **options)
    expected = {Path(path).name: Path(path).read_bytes() for path in calm.files}
    for at in range(1, 1 + count_calls(converter(source, tmp_path / "counted" / name, options))):
        target = tmp_path / f"killed-{at}" / name
        ending = run_killed(converter(source, target, options), at, "after" if at % 2 else "before")
        assert ending.how in ("killed", "finished"), ending
        if is_there(target, options):
            assert differences(path_of(target, options), TREE) == [], ending
        again = converter(source, target, options)(DISK)
        assert {path.name: path.read_bytes() for path in target.parent.iterdir()} == expected, ending
        assert not leftovers(target.parent), ending
        assert again.converted == len(TREE)


def test_finished_files_survive_the_kill(tmp_path: Path, source: str) -> None:
    """Some kill leaves finished files, and the next run keeps them."""
    options, kept = TARGETS["m.safetensors"], set()
    calls = count_calls(converter(source, tmp_path / "counted" / "m.safetensors", options))
    for at in range(1, calls, 3):
        target = tmp_path / f"killed-{at}" / "m.safetensors"
        run_killed(converter(source, target, options), at)
        there = {path: os.stat(path).st_ino for path in target.parent.glob("m-*.safetensors")}
        again = converter(source, target, options)(DISK)
        if not again.already:
            assert set(again.kept) == {str(path) for path in there}
        assert all(os.stat(path).st_ino == inode for path, inode in there.items())
        kept.add(len(there))
    assert {0, 1, 2, 3} <= kept


@pytest.mark.parametrize("name", TARGETS)
def test_killed_while_it_replaces(tmp_path: Path, source: str, name: str) -> None:
    """The target is the old one or the new one, whole, at every call."""
    options = TARGETS[name]
    old = save_tree(tmp_path / "old", OLD)
    seen = set()
    first = tmp_path / "counted" / name
    openckpt.convert(old, first, **options)
    replacing = {**options, "overwrite": True}
    calls = count_calls(converter(source, first, replacing))
    for at in range(1, calls + 1, 2):
        target = tmp_path / f"killed-{at}" / name
        openckpt.convert(old, target, **options)
        ending = run_killed(converter(source, target, replacing), at)
        path = path_of(target, options)
        state = "new" if not differences(path, TREE) else "old"
        assert state == "new" or differences(path, OLD) == [], ending
        seen.add(state)
        converter(source, target, replacing)(DISK)
        assert differences(path, TREE) == []
        assert not leftovers(target.parent), ending
    assert seen == {"old", "new"}


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
@pytest.mark.parametrize("name", TARGETS)
def test_refused_at_every_call(tmp_path: Path, source: str, name: str, number: int) -> None:
    """An error that names the call; nothing of the target is left, the next run succeeds."""
    options = TARGETS[name]
    calls = count_calls(converter(source, tmp_path / "counted" / name, options))
    for at in range(1, calls + 1):
        target = tmp_path / f"refused-{at}" / name
        store = FaultyFS(DISK, fail_at=at, error=number)
        try:
            converter(source, target, options)(store)
        except OSError as error:
            assert error.errno == number
            if is_there(target, options):  # a refusal behind the commit point cannot take it back
                assert differences(path_of(target, options), TREE) == []
        else:
            assert differences(path_of(target, options), TREE) == []
        again = converter(source, target, options)(DISK)
        assert differences(again.target, TREE) == []
        assert not leftovers(target.parent)


@pytest.mark.parametrize("name", TARGETS)
def test_an_interrupt_leaves_nothing(tmp_path: Path, source: str, name: str) -> None:
    """Ctrl-C in any batch: no file, no lock, no thread."""
    before = threading.active_count()

    def interrupt(what: str, done: int, total: int | None) -> None:
        raise KeyboardInterrupt

    target = tmp_path / "out" / name
    with pytest.raises(KeyboardInterrupt):
        openckpt.convert(source, target, progress=interrupt, **TARGETS[name])
    assert list(target.parent.glob("*")) == []
    assert threading.active_count() == before


def test_ctrl_c_of_the_program(tmp_path: Path) -> None:
    """The command says so in one line, ends with 130 and leaves nothing."""
    source = save_tree(tmp_path / "source", {f"k{n}": ("float32", np.ones(1 << 20, "f4")) for n in range(16)})
    code = (
        "import os, signal, sys\n"
        "from openckpt.writing import writer\n"
        "real = writer.CheckpointWriter.add_many\n"
        "def slow(self, values):\n"
        "    real(self, values)\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "writer.CheckpointWriter.add_many = slow\n"
        "from openckpt.cli.program import run\n"
        f"sys.exit(run(['convert', {source!r}, {str(tmp_path / 'out' / 'x')!r}, '--max-memory', '8MiB']))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)

    assert (done.returncode, done.stderr) == (130, "openckpt: interrupted\n")
    assert list((tmp_path / "out").glob("*")) == []


@pytest.mark.parametrize("name", TARGETS)
def test_a_power_cut_leaves_the_old_or_the_new_target(tmp_path: Path, source: str, name: str) -> None:
    """At any moment of a conversion and of one that replaces it; when the call has returned, it is the new one."""
    options, fs = TARGETS[name], PowerLossFS()
    to = choose_format(name, None)
    path = str(path_of(Path("out") / name, options))
    old = save_tree(tmp_path / "old", OLD)

    def state(store: Any) -> str:
        if store.stat(f"{path}.index" if to == "dual" else path) is None:
            return "absent"
        with open_output(store, path, to) as found:
            values = found.read_many()
        return next(
            (which for which, tree in (("new", TREE), ("old", OLD)) if values.keys() == tree.keys()
             and all(same(values[key], value) for key, (_, value) in tree.items())),
            "mixed",
        )  # fmt: skip

    openckpt.convert(old, f"out/{name}", store=fs, **options)
    first = len(fs.changes)
    assert {state(image) for image in fs.images(limit=40)} == {"old"}
    openckpt.convert(source, f"out/{name}", store=fs, overwrite=True, **options)
    assert {state(image) for image in fs.images(limit=40)} == {"new"}
    digests, states = set(), set()
    for number, cut in enumerate(fs.cuts()):
        allowed = {"absent", "old"} if number <= first else {"old", "new"}
        for image in cut.images(limit=12, seed=number):
            if image.digest not in digests:
                digests.add(image.digest)
                found = state(image)
                assert found in allowed, image.replay
                states.add(found)
    assert states == {"absent", "old", "new"}
    assert len(digests) > 30


def test_a_file_that_is_kept_is_made_safe(source: str) -> None:
    """An earlier run that promised less died before the index: what it had finished was never synced, and now it must be."""
    fs, target, options = PowerLossFS(), "out/m.safetensors", TARGETS["m.safetensors"]
    hasty = openckpt.convert(source, target, store=fs, durability="process-crash", **options)
    fs.remove(hasty.target)
    done = openckpt.convert(source, target, store=fs, **options)
    assert len(done.kept) == len(hasty.files) - 1 and done.durability == "power-loss"
    for image in fs.images(limit=40):
        with open_output(image, done.target, "safetensors") as found:
            values = found.read_many()
        assert values.keys() == TREE.keys(), image.replay
        assert all(same(values[key], value) for key, (_, value) in TREE.items()), image.replay
