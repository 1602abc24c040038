"""``openckpt convert``: what it says, what it answers, and what it refuses."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import openckpt
from docs.schema import faults, schemas
from openckpt.cli.convert import Size
from unit.cli.running import Runner


def test_json_follows_the_documented_schema(openckpt_cli: Runner, run_folder: Path) -> None:
    """Written, cast, filtered, and found done."""
    target = run_folder / "out.npz"
    arguments = ("convert", run_folder, target, "--json", "--cast", "float16", "--exclude", "*bias")
    for already in (False, True):
        answer = openckpt_cli(*arguments)
        (document,) = answer.documents
        assert answer.code == 0
        assert faults(document, schemas()["convert"]) == []
        assert document["source"] == str(run_folder / "ckpt-2")
        assert (document["converted"], document["total"], document["filtered"]) == (2, 3, ["dense/bias"])
        assert (document["already"], document["files"]) == (already, [str(target)])
        assert document["nbytes"] == target.stat().st_size
        assert [(cast["target"], cast["tensors"]) for cast in document["casts"]] == [("float16", 1)]


def test_the_lines_for_people(openckpt_cli: Runner, run_folder: Path) -> None:
    """What became of what; the last line counts, also when there was nothing left to do."""
    arguments = (
        "convert",
        run_folder / "ckpt-1",
        run_folder / "x.h5",
        "--cast",
        "float32=bfloat16",
        "--include",
        "dense*",
    )
    first, second = openckpt_cli(*arguments), openckpt_cli(*arguments)

    assert (first.code, first.err) == (0, "")
    lines = first.out.splitlines()
    assert lines[0] == f"{run_folder / 'ckpt-1'} (bundle-v2) -> {run_folder / 'x.h5'} (hdf5)"
    assert lines[1].strip().startswith("cast float32 to bfloat16: 2 tensors, largest error 0")
    assert lines[2].strip() == "left out by filters: step"
    assert lines[-2].startswith("  1 file, ") and lines[-2].endswith(", read back and equal, survives a power cut")
    assert lines[-1] == "converted 2 of 3 tensors"
    assert (second.code, second.out.splitlines()[-1]) == (0, "converted 2 of 3 tensors")
    assert "there already" in second.out


def test_kept_files_notes_and_no_proof(openckpt_cli: Runner, run_folder: Path) -> None:
    """Each has its line; what was not proved is not claimed."""
    target = run_folder / "m.safetensors"
    openckpt_cli("convert", run_folder, target, "--max-shard-size", "30")
    (run_folder / "m.safetensors.index.json").unlink()
    answer = openckpt_cli(
        "convert", run_folder, target, "--max-shard-size", "30B", "--no-verify", "--durability", "process-crash",
        "--exclude", "nothing*",
    )  # fmt: skip

    assert "  3 finished files of an earlier run kept\n" in answer.out
    assert "note:   the pattern 'nothing*' matches no key\n" in answer.out
    assert answer.out.splitlines()[-2].endswith(" B, survives a crash of the program")


@pytest.mark.parametrize("kind", ["tensorflow", "dual", "safetensors", "hdf5", "npz"])
def test_every_format_by_word(openckpt_cli: Runner, zoo: Path, tmp_path: Path, kind: str) -> None:
    """Whatever DST is called, and whatever the source's names would do to a terminal."""
    answer = openckpt_cli("convert", zoo, tmp_path / "out" / "thing", "--to", kind)

    assert (answer.code, answer.err) == (0, "")
    assert "\x1b" not in answer.out
    with openckpt.open(tmp_path / "out" / "thing") as ckpt, openckpt.open(zoo) as source:
        assert set(ckpt) == set(source)


def test_an_existing_target_is_an_answer_not_an_error(openckpt_cli: Runner, run_folder: Path) -> None:
    """Exit code 1: no; replaced when asked for."""
    target = run_folder / "x.npz"
    openckpt_cli("convert", run_folder / "ckpt-1", target)
    answer = openckpt_cli("convert", run_folder / "ckpt-2", target)
    assert (answer.code, answer.out) == (1, "")
    assert "[convert.exists]" in answer.err
    assert "--overwrite" in answer.err
    assert openckpt_cli("convert", run_folder / "ckpt-2", target, "--overwrite").code == 0


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["SRC", "x.keras"], 2, "convert.target"),
        (["SRC", "x", "--cast", "int8"], 2, "convert.cast"),
        (["SRC", "x", "--to", "pickle"], 2, "is not one of"),
        (["SRC", "x", "--max-memory", "lots"], 2, "is no size"),
        (["SRC", "x", "--max-memory", "1kB"], 2, "max_memory"),
        (["SRC", "x.npz", "--max-shard-size", "1MB"], 2, "max_shard_size"),
        (["SRC"], 2, "Missing argument"),
        (["SRC", "x", "--include", "zzz"], 1, "convert.nothing"),
        (["absent", "x"], 4, "path.not-found"),
        (["damaged", "x"], 3, "bundle.crc-mismatch"),
        (["SRC", "SRC", "--cast", "float16"], 1, "convert.same"),
    ],
)
def test_exit_codes(
    openckpt_cli: Runner, run_folder: Path, damaged: Path, tmp_path: Path, arguments: list[str], code: int, said: str
) -> None:
    """2 for a wrong command line, 1 for no, 3 and 4 as everywhere; nothing is written."""
    places = {"SRC": str(run_folder / "ckpt-1"), "damaged": str(damaged), "x": str(tmp_path / "o" / "x")}
    answer = openckpt_cli("convert", *(places.get(word, word) for word in arguments))

    assert answer.code == code
    assert said in answer.err
    assert answer.out == ""
    assert not list((tmp_path / "o").glob("*"))


def test_an_error_as_json(openckpt_cli: Runner, damaged: Path, tmp_path: Path) -> None:
    """As every command prints it."""
    answer = openckpt_cli("convert", damaged, tmp_path / "x", "--json")
    (document,) = answer.documents
    assert faults(document, schemas()["error"]) == []
    assert document["error"]["code"] == "bundle.crc-mismatch"


def test_a_refusal_of_the_target_is_not_told_of_the_source(
    openckpt_cli: Runner, run_folder: Path, tmp_path: Path
) -> None:
    """The place of the error is the path that the system refused; the document still names what was asked for."""
    (tmp_path / "file").write_bytes(b"")
    answer = openckpt_cli("convert", run_folder / "ckpt-1", tmp_path / "file" / "x", "--json")
    (document,) = answer.documents
    assert (answer.code, document["path"]) == (4, str(run_folder / "ckpt-1"))
    assert document["error"]["code"] == "storage.refused"
    assert document["error"]["where"]["path"].startswith(str(tmp_path / "file"))


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("4096", 4096),
        ("5GB", 5_000_000_000),
        ("512MiB", 512 << 20),
        ("1.5 kB", 1500),
        ("2g", 2_000_000_000),
        ("1TiB", 1 << 40),
        ("7B", 7),
    ],
)
def test_sizes(text: str, size: int) -> None:
    """Decimal units and binary ones; a space and case do not matter."""
    assert Size().convert(text, None, None) == size


@pytest.mark.parametrize("text", ["", "MB", "-1", "1XB", "1e9", "0x10"])
def test_what_is_no_size(text: str) -> None:
    """The message shows how to write one."""
    import click

    with pytest.raises(click.BadParameter, match="is no size; write 5GB"):
        Size().convert(text, None, None)


def test_a_source_that_is_an_archive(openckpt_cli: Runner, run_folder: Path, tmp_path: Path) -> None:
    """Read in place; the name inside is told."""
    shutil.make_archive(str(tmp_path / "box"), "gztar", run_folder)
    answer = openckpt_cli("convert", tmp_path / "box.tar.gz", tmp_path / "x.safetensors")
    assert answer.code == 0
    assert "box.tar.gz!" in answer.out


def test_the_library_and_the_command_write_the_same(openckpt_cli: Runner, zoo: Path, tmp_path: Path) -> None:
    """The command is a shell over one function."""
    openckpt_cli("convert", zoo, tmp_path / "a.npz", "--cast", "float16", "--exclude", "big")
    openckpt.convert(zoo, tmp_path / "b.npz", cast="float16", exclude="big")
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


def test_a_value_that_json_lacks_does_not_break_the_document(openckpt_cli: Runner, tmp_path: Path) -> None:
    """Not-a-number has no difference to anything."""
    openckpt.save(tmp_path / "a", {"x": np.array([np.nan, np.inf], "f4")})
    document: Any = openckpt_cli("convert", tmp_path / "a", tmp_path / "b", "--cast", "float16", "--json").documents[0]
    assert document["casts"][0]["largest_error"] == 0.0
    assert json.dumps(document, allow_nan=False)
