""".keras: zipped and unzipped, with and without what should be in it."""

from __future__ import annotations

import json
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from containers import zipped
from hdf5_bytes import ONES, datasets
from openckpt.errors import CheckpointError, CorruptionError, UnsafeError
from openckpt.formats.hdf5.child import HDF5Child
from openckpt.formats.keras_archive import open_keras
from openckpt.storage import LOCAL
from openckpt.storage.memory import MemoryStore

WEIGHTS = datasets({"layers/dense/vars/0": ONES, "layers/dense/vars/1": ONES[0]})
METADATA = b'{"keras_version": "3.8.0", "date_saved": "2025-01-30@16:49:02"}'
CONFIG = b'{"module": "keras", "class_name": "Sequential", "config": {"layers": []}}'
MEMBERS = {"metadata.json": METADATA, "config.json": CONFIG, "model.weights.h5": WEIGHTS}


def opened(members: dict[str, bytes], **options: Any) -> Any:
    return open_keras(MemoryStore({"m.keras": zipped(members)}), "m.keras", **options)


def findings(reader: Any) -> list[tuple[str, str]]:
    return [(finding.code, finding.severity) for finding in reader.validate()]


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_archive_opens(tmp_path: Path, method: int) -> None:
    """Keys are those of the weights member; version, date and class are those of the JSON members."""
    path = tmp_path / "m.keras"
    path.write_bytes(zipped(MEMBERS, method))

    reader = open_keras(LOCAL, str(path))

    assert list(reader.keys()) == ["layers/dense/vars/0", "layers/dense/vars/1"]
    assert reader.read("layers/dense/vars/0").tolist() == ONES.tolist()
    assert reader.view("layers/dense/vars/0").tolist() == ONES.tolist()
    assert (reader.format, reader.keras_version, reader.date_saved, reader.class_name) == (
        "keras-v3", "3.8.0", "2025-01-30@16:49:02", "Sequential",
    )  # fmt: skip
    assert reader.files == (str(path),)
    assert reader.members == {name: len(data) for name, data in MEMBERS.items()}
    assert findings(reader) == []
    reader.close()


def test_weights_can_be_parsed_by_a_child() -> None:
    """The member is sent to the process; values are read here."""
    store = MemoryStore({"m.keras": zipped(MEMBERS)})

    with HDF5Child() as child:
        reader = open_keras(store, "m.keras", child=child)

        assert reader.read("layers/dense/vars/0").tolist() == ONES.tolist()
        assert findings(reader) == []


def test_view_of_a_stored_member_outlives_the_reader(tmp_path: Path) -> None:
    """It is a window on the map of the whole archive."""
    path = tmp_path / "m.keras"
    path.write_bytes(zipped(MEMBERS))
    reader = open_keras(LOCAL, str(path))
    view = reader.view("layers/dense/vars/0")
    reader.close()

    assert view.tolist() == ONES.tolist()


def test_unzipped_directory_opens() -> None:
    """The same files beside each other (formats 8.1)."""
    reader = open_keras(MemoryStore({f"m/{name}": data for name, data in MEMBERS.items()}), "m")

    assert reader.read("layers/dense/vars/0").tolist() == ONES.tolist()
    assert reader.keras_version == "3.8.0"
    assert reader.files == ("memory:m/model.weights.h5", "memory:m/config.json", "memory:m/metadata.json")
    assert findings(reader) == []


def test_pickled_weights_are_refused_by_name() -> None:
    """Keras could write them, and cannot read them back either."""
    members = {"metadata.json": METADATA, "config.json": CONFIG, "model.weights.npz": b"..."}

    with pytest.raises(UnsafeError, match=r"model\.weights\.npz") as caught:
        opened(members)
    assert caught.value.code == "keras.npz-weights"


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "keras.not-an-archive"),
        (WEIGHTS, "keras.not-an-archive"),
        (zipped({"config.json": CONFIG}), "keras.no-weights"),
        (zipped({"sub/model.weights.h5": WEIGHTS}), "keras.no-weights"),
        (zipped({**MEMBERS, "model.weights.h5": WEIGHTS[:-1]}), "hdf5.truncated"),
        (zipped({**MEMBERS, "model.weights.h5": b"version https://git-lfs"}), "hdf5.no-signature"),
    ],
)
def test_rejected(data: bytes, code: str) -> None:
    """No archive, no weights, damaged weights."""
    with pytest.raises(CorruptionError) as caught:
        open_keras(MemoryStore({"m.keras": data}), "m.keras")

    assert caught.value.code == code


ODD = {
    "no metadata": ({**MEMBERS, "metadata.json": None}, [("keras.metadata", "warning")]),
    "no config": ({**MEMBERS, "config.json": None}, [("keras.config", "warning")]),
    "metadata that is no JSON": ({**MEMBERS, "metadata.json": b"{"}, [("keras.metadata", "warning")]),
    "config that is nested": ({**MEMBERS, "config.json": b"[" * 200_000}, [("keras.config", "warning")]),
    "config of a huge number": ({**MEMBERS, "config.json": b'{"class_name": ' + b"9" * 10_000 + b"}"}, [("keras.config", "warning")]),
    "config that is a list": ({**MEMBERS, "config.json": b"[]"}, [("keras.config", "warning")]),
    "code in a layer": (
        {**MEMBERS, "config.json": json.dumps({
            "class_name": "Functional",
            "config": {"layers": [{"class_name": "Lambda", "config": {"name": "f", "function": {"class_name": "__lambda__", "config": {}}}}]},
        }).encode()},
        [("keras.lambda-layer", "note")],
    ),
    "assets": ({**MEMBERS, "assets/vocabulary.txt": b"a\nb\n"}, []),
}  # fmt: skip


@pytest.mark.parametrize("name", ODD)
def test_weights_read_whatever_the_json_says(name: str) -> None:
    """What is wrong beside the weights is a finding, and never keeps them from being read."""
    members, expected = ODD[name]
    reader = opened({key: data for key, data in members.items() if data is not None})

    assert reader.read("layers/dense/vars/0").tolist() == ONES.tolist()
    assert findings(reader) == expected


def test_changed_bytes_in_any_member_are_found() -> None:
    """Every member has a CRC-32; validate checks them all."""
    data = bytearray(zipped(MEMBERS))
    data[data.index(ONES.tobytes())] ^= 1
    data[data.index(b"2025-01")] ^= 1
    reader = open_keras(MemoryStore({"m.keras": bytes(data)}), "m.keras")

    assert [code for code, _ in findings(reader)] == ["archive.crc-mismatch"] * 2
    assert [finding.code for finding in reader.validate(data=False)] == []


def test_truncated_archive_is_damaged() -> None:
    """A zip ends with its directory: nothing of a cut one can be listed."""
    with pytest.raises(CheckpointError) as caught:
        open_keras(MemoryStore({"m.keras": zipped(MEMBERS)[:-100]}), "m.keras")

    assert caught.value.code.startswith("archive.")


def test_keras_is_never_imported() -> None:
    """Names are read out of the configuration; no class is looked up."""
    before = "keras" in sys.modules
    opened(MEMBERS)

    assert ("keras" in sys.modules) == before
