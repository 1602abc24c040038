"""``openckpt show``: values, numbers and pictures of tensors of every kind."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from docs.schema import faults, schemas
from openckpt.formats.bundle import encode_bundle
from openckpt.storage.writing import write_folder
from unit.cli.conftest import EVIL
from unit.cli.running import Runner


def show(run: Runner, zoo: Path, key: str, *options: str) -> dict[str, object]:
    document = run("show", "--json", zoo, key, *options).documents[0]
    assert faults(document, schemas()["show"]) == []
    (tensor,) = document["tensors"]
    assert isinstance(tensor, dict)
    return tensor


def test_json_tells_of_what_could_not_be_shown(openckpt_cli: Runner, damaged: Path, tmp_path: Path) -> None:
    """An absent path has its line, as in every command; a key that is absent or damaged is told beside those that are not."""
    absent = openckpt_cli("show", "--json", tmp_path / "absent", "w")
    (document,) = absent.documents
    assert (absent.code, document["error"]["code"]) == (4, "path.not-found")
    assert faults(document, schemas()["error"]) == []
    answer = openckpt_cli("show", "--json", damaged, "dense/*", "nope")
    (document,) = answer.documents
    assert faults(document, schemas()["show"]) == []
    assert {error["code"] for error in document["errors"]} == {"bundle.crc-mismatch", "spec.no-such-key"}
    assert answer.code == 3 and document["tensors"]


def test_npy_that_cannot_be_written_names_the_file(openckpt_cli: Runner, zoo: Path, tmp_path: Path) -> None:
    """The file that was asked for, not the temporary one beside it."""
    target = tmp_path / "absent" / "x.npy"
    answer = openckpt_cli("show", zoo, "brain", "--npy", target)
    assert (answer.code, answer.err) == (4, f"openckpt: error: {target}: No such file or directory\n")


def test_json_follows_the_documented_schema(openckpt_cli: Runner, zoo: Path) -> None:
    """Every tensor of the zoo at once, by pattern."""
    document = openckpt_cli("show", "--json", zoo, "*").documents[0]
    assert faults(document, schemas()["show"]) == []
    assert len(document["tensors"]) == 16


def test_numbers_are_those_of_the_tensor(openckpt_cli: Runner, zoo: Path) -> None:
    """Statistics in the JSON equal numpy's on the array that was saved."""
    array = np.random.default_rng(0).normal(size=1000).astype("f4").astype("f8")
    statistics = show(openckpt_cli, zoo, "normal")["statistics"]
    assert isinstance(statistics, dict)
    assert (statistics["min"], statistics["max"]) == (array.min(), array.max())
    assert statistics["mean"] == pytest.approx(array.mean())
    assert statistics["std"] == pytest.approx(array.std())


def test_non_finite_numbers_are_counted_and_spelled(openckpt_cli: Runner, zoo: Path) -> None:
    """JSON has no NaN: strings stand for them, and the counts tell."""
    tensor = show(openckpt_cli, zoo, "holes")
    assert tensor["values"] == [1.0, "nan", "inf", "-inf", 0.0]
    assert isinstance(tensor["statistics"], dict)
    assert (tensor["statistics"]["nan"], tensor["statistics"]["inf"]) == (1, 2)


@pytest.mark.parametrize(
    ("key", "values"),
    [("flags", [True, False, True]), ("complex", [[3.0, 4.0], [0.0, "nan"]]), ("brain", [1.5, 2.25, -3.0]),
     ("nibbles", [-8, 7, 0]), ("words", ["hello", {"base64": "//4="}, "\x1b[31mred"]), ("scalar", [3.5]), ("empty", []),
     ("no-words", []), ("opaque", ["abc" * 40]), ("big", [2**64 - 1, 0])],
)  # fmt: skip
def test_values_of_every_kind(openckpt_cli: Runner, zoo: Path, key: str, values: list[object]) -> None:
    """Each kind of tensor has a form in JSON."""
    assert show(openckpt_cli, zoo, key)["values"] == values


def test_values_says_how_many(openckpt_cli: Runner, zoo: Path) -> None:
    """The first N elements in C order."""
    assert show(openckpt_cli, zoo, "big", "--values", "1")["values"] == [2**64 - 1]
    assert show(openckpt_cli, zoo, "big", "--values", "0")["values"] == []


def test_text_has_numbers_picture_and_corners(openckpt_cli: Runner, zoo: Path) -> None:
    """In a pipe as on a screen: statistics, twelve bars, the ends of the array."""
    lines = openckpt_cli("show", zoo, "normal").out.splitlines()
    assert lines[0] == "normal  float32 [1000]  4,000 bytes"
    assert lines[1].startswith("  min -")
    assert "nan 0  inf 0" in lines[1]
    assert sum("█" in line or "▏" in line or " .. " in line for line in lines) == 12
    assert " ... " in lines[-2]


@pytest.mark.parametrize(
    ("key", "shown"),
    [("scalar", "3.5"), ("empty", "no elements"), ("no-words", "no elements"), ("words", "0   hello"),
     ("words", r"1   \xff\xfe"), ("words", r"2   \x1b[31mred"), ("opaque", "61 62 63"), ("complex", "of the absolute value"),
     ("holes", "nan 1  inf 2"), ("big", "max 18,446,744,073,709,551,615")],
)  # fmt: skip
def test_text_of_every_kind(openckpt_cli: Runner, zoo: Path, key: str, shown: str) -> None:
    """Each kind of tensor has a form for people."""
    answer = openckpt_cli("show", zoo, key)
    assert answer.code == 0
    assert shown in answer.out


def test_literal_names_come_before_patterns(openckpt_cli: Runner, zoo: Path) -> None:
    """A key with brackets is a name; a pattern is tried only where there is no such name."""
    assert show(openckpt_cli, zoo, "w[0]")["key"] == "w[0]"
    keys = [tensor["key"] for tensor in openckpt_cli("show", "--json", zoo, "b*", "brain").documents[0]["tensors"]]
    assert keys == ["big", "brain"]


def test_the_path_of_a_variable_is_enough(openckpt_cli: Runner, tmp_path: Path) -> None:
    """What `tree` draws can be typed; a key of that very name comes first."""
    suffix = "/.ATTRIBUTES/VARIABLE_VALUE"
    tensors = {"model/w" + suffix: np.float32(1), "model/b" + suffix: np.float32(2), "model/b": np.float32(3)}
    write_folder(str(tmp_path), encode_bundle(tensors, "m"))
    assert show(openckpt_cli, tmp_path / "m", "model/w")["values"] == [1.0]
    assert show(openckpt_cli, tmp_path / "m", "model/b")["values"] == [3.0]


def test_an_odd_name_can_be_given(openckpt_cli: Runner, zoo: Path) -> None:
    """What --json printed can be passed back as it is."""
    assert show(openckpt_cli, zoo, EVIL)["key"] == EVIL
    name = b"\xff\xfekey".decode("utf-8", "surrogateescape")
    assert show(openckpt_cli, zoo, name)["key"] == name


def test_one_missing_key_does_not_hide_the_others(openckpt_cli: Runner, zoo: Path) -> None:
    """What exists is shown, what does not is told, and the exit code says no."""
    answer = openckpt_cli("show", zoo, "scalar", "nothing", "flags")
    assert answer.code == 1
    assert "scalar" in answer.out and "flags" in answer.out
    assert "nothing" in answer.err


@pytest.mark.parametrize(
    ("key", "dtype"), [("normal", "float32"), ("brain", "float32"), ("nibbles", "int8"), ("flags", "bool"), ("complex", "complex128"),
                       ("empty", "float32"), ("scalar", "float32"), ("big", "uint64")],
)  # fmt: skip
def test_npy_holds_the_exact_values(openckpt_cli: Runner, zoo: Path, tmp_path: Path, key: str, dtype: str) -> None:
    """`numpy.load` needs nothing but numpy, so types that numpy lacks are widened."""
    import openckpt

    target = tmp_path / "out.npy"
    answer = openckpt_cli("show", zoo, key, "--npy", target)
    assert (answer.code, answer.out) == (0, "")
    loaded = np.load(target, allow_pickle=False)
    with openckpt.open(zoo) as ckpt:
        np.testing.assert_array_equal(loaded, ckpt[key].astype(dtype))
    assert loaded.dtype == dtype


def test_npy_replaces_the_file_only_when_it_is_whole(openckpt_cli: Runner, zoo: Path, tmp_path: Path) -> None:
    """A tensor that cannot be written leaves an earlier file alone, and no other behind."""
    target = tmp_path / "out.npy"
    target.write_bytes(b"earlier")
    answer = openckpt_cli("show", zoo, "words", "--npy", target)
    assert answer.code == 3
    assert "spec.no-npy" in answer.err
    assert target.read_bytes() == b"earlier"
    assert [path.name for path in tmp_path.iterdir() if "npy" in path.name] == ["out.npy"]


@pytest.mark.parametrize("keys", [["b*"], ["scalar", "flags"]])
def test_npy_of_several_tensors_is_a_usage_error(
    openckpt_cli: Runner, zoo: Path, tmp_path: Path, keys: list[str]
) -> None:
    """One file holds one array."""
    answer = openckpt_cli("show", zoo, *keys, "--npy", tmp_path / "out.npy")
    assert answer.code == 2
    assert not (tmp_path / "out.npy").exists()


def test_npy_into_a_directory_that_is_not_there_is_4(openckpt_cli: Runner, zoo: Path, tmp_path: Path) -> None:
    """The system's refusal names the file."""
    answer = openckpt_cli("show", zoo, "scalar", "--npy", tmp_path / "no" / "out.npy")
    assert answer.code == 4
    assert "out.npy" in answer.err
