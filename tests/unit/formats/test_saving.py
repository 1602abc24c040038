"""What a save notes in its lock reads back, and nothing else is taken for such a note."""

from __future__ import annotations

import pytest

from openckpt.formats.bundle.saving import SaveRecord, encode_record, parse_record, read_record
from openckpt.storage.memory import MemoryStore


@pytest.mark.parametrize("record", [SaveRecord(1), SaveRecord(2, (1,)), SaveRecord(99_999, (1, 2, 7))])
def test_a_record_reads_back(record: SaveRecord) -> None:
    """Alone, and from the lock it is written into: as the first line, whatever longer note lay there before."""
    line = encode_record(record)
    assert b"\n" not in line
    assert parse_record(line) == record
    assert read_record(MemoryStore({"run/m.openckpt-lock": line + b"\n" + b"replaces"}), "run/m") == record


REJECTED = {
    "nothing": b"",
    "half": b'{"writes": 2, "repl',
    "no end of line": b'{"writes": 2, "replaces": []}',
    "another document": b"[]\n",
    "a number": b"3\n",
    "no replaces": b'{"writes": 2}\n',
    "a count that is text": b'{"writes": "2", "replaces": []}\n',
    "a count that is true": b'{"writes": true, "replaces": []}\n',
    "no shards": b'{"writes": 0, "replaces": []}\n',
    "a name among the counts": b'{"writes": 2, "replaces": ["../x"]}\n',
    "replaces is a number": b'{"writes": 2, "replaces": 1}\n',
    "not UTF-8": b'{"writes": 2, "replaces": [], "x": "\xff"}\n',
    "thousands of digits": b'{"writes": 1' + b"0" * 4000 + b', "replaces": []}\n',
    "nested": b"[" * 4000 + b"\n",
    "longer than a record may be": b'{"writes": 2, "replaces": [' + b"1," * 4000 + b"1]}\n",
}


@pytest.mark.parametrize("name", REJECTED)
def test_what_is_no_record_says_nothing(name: str) -> None:
    """A save that was killed while it wrote it, a lock of the manifest, or somebody else's file."""
    assert read_record(MemoryStore({"m.openckpt-lock": REJECTED[name]}), "m") is None


def test_without_a_lock_there_is_no_record() -> None:
    """Which is the usual case."""
    assert read_record(MemoryStore({}), "m") is None
