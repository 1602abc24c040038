"""Files appear whole or not at all, and names stay inside their folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from openckpt.storage.writing import replace_file, write_folder


def test_a_file_takes_its_place_when_the_block_ends(tmp_path: Path) -> None:
    """Until then the earlier file is there, and afterwards nothing else is."""
    target = tmp_path / "out"
    target.write_bytes(b"earlier")
    with replace_file(str(target)) as file:
        file.write(b"later")
        assert target.read_bytes() == b"earlier"
    assert target.read_bytes() == b"later"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_an_error_leaves_the_earlier_file_and_no_other(tmp_path: Path) -> None:
    """Half a file is worse than none."""
    target = tmp_path / "out"
    target.write_bytes(b"earlier")
    with pytest.raises(ZeroDivisionError), replace_file(str(target)) as file:
        file.write(b"half")
        raise ZeroDivisionError
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"out": b"earlier"}


def test_a_directory_is_not_replaced(tmp_path: Path) -> None:
    """The system's own word for it."""
    with pytest.raises(IsADirectoryError), replace_file(str(tmp_path)):
        raise AssertionError("the block must not run")


def test_a_folder_is_written_with_its_subfolders(tmp_path: Path) -> None:
    """Slashes in names make folders."""
    write_folder(str(tmp_path / "new"), {"a": b"1", "b/c/d": b"2"})
    assert (tmp_path / "new" / "b" / "c" / "d").read_bytes() == b"2"


@pytest.mark.parametrize("name", ["/etc/x", "../x", "a/../../x", "a//b", "./a", "", "a/"])
def test_names_that_lead_out_are_refused_before_anything_is_written(tmp_path: Path, name: str) -> None:
    """A folder is a folder."""
    with pytest.raises(ValueError, match="not a name inside a folder"):
        write_folder(str(tmp_path / "new"), {"good": b"1", name: b"2"})
    assert not (tmp_path / "new").exists()
