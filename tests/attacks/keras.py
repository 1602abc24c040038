"""Hostile .keras archives (formats 8.1): code in layers, pickled weights, zips and JSON that lie."""

from __future__ import annotations

import json
import pickle
import zipfile
from collections.abc import Callable, Mapping

from attacks.attack import Attack
from containers import zipped

METADATA = b'{"keras_version": "3.8.0", "date_saved": "2025-01-30@16:49:02"}'
CONFIG = b'{"module": "keras", "class_name": "Sequential", "config": {"layers": []}}'


def _weights(**changes: object) -> bytes:
    import numpy as np

    from hdf5_bytes import datasets

    return datasets({"layers/dense/vars/0": np.ones(4, np.float32), **changes})


def _archive(
    name: str,
    code: str,
    changes: Mapping[str, bytes | None] | Callable[[], Mapping[str, bytes | None]],
    *,
    how: str = "doctor",
    method: int = zipfile.ZIP_STORED,
    damage: Callable[[bytes], bytes] = bytes,
) -> Attack:
    """A sound archive with some members changed, added or (None) left out."""

    def files() -> dict[str, bytes]:
        members: dict[str, bytes | None] = {
            "metadata.json": METADATA,
            "config.json": CONFIG,
            "model.weights.h5": _weights(),
        }
        members.update(changes() if callable(changes) else changes)
        return {"m.keras": damage(zipped({name: data for name, data in members.items() if data is not None}, method))}

    return Attack(name, files, "m.keras", code, how=how)  # type: ignore[arg-type]


def _layer(config: object) -> bytes:
    return json.dumps({"class_name": "Functional", "config": {"layers": [config]}}).encode()


_BYTECODE = {"class_name": "__lambda__", "config": {"code": "4wEAAAAAAAAA", "defaults": None, "closure": None}}


def _link(data: bytes) -> bytes:
    """Make the weights member a symbolic link: the mode in the directory says so."""
    at = data.rindex(b"PK\1\2")
    return data[: at + 5] + b"\3" + data[at + 6 : at + 38] + (0o120777 << 16).to_bytes(4, "little") + data[at + 42 :]


def _flip(needle: bytes) -> Callable[[bytes], bytes]:
    def damage(data: bytes) -> bytes:
        at = data.index(needle)
        return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]

    return damage


CASES = [
    _archive(
        "code-in-a-lambda-layer",
        "keras.lambda-layer",
        {"config.json": _layer({"class_name": "Lambda", "config": {"name": "f", "function": _BYTECODE}})},
    ),
    _archive(
        "code-in-a-lambda-layer-of-keras-2",
        "keras.lambda-layer",
        {
            "config.json": _layer(
                {
                    "class_name": "Lambda",
                    "config": {"name": "f", "function_type": "lambda", "function": ["4wEA", None, None]},
                }
            )
        },
    ),
    _archive(
        "code-deep-in-a-custom-layer",
        "keras.lambda-layer",
        {"config.json": _layer({"class_name": "X", "config": {"name": "x", "a": [{"b": _BYTECODE}]}})},
    ),
    _archive(
        "pickled-weights",
        "keras.npz-weights",
        {"model.weights.h5": None, "model.weights.npz": pickle.dumps(object())},
        how="read",
    ),
    _archive("no-weights", "keras.no-weights", {"model.weights.h5": None}, how="read"),
    _archive("weights-cut-off", "hdf5.truncated", lambda: {"model.weights.h5": _weights()[:-1]}, how="read"),
    _archive(
        "weights-that-are-a-pointer",
        "hdf5.no-signature",
        {"model.weights.h5": b"version https://git-lfs.github.com/spec/v1\n"},
        how="read",
    ),
    _archive(
        "weights-that-are-a-link", "archive.link", {"model.weights.h5": b"../outside.h5"}, how="read", damage=_link
    ),
    _archive("config-nested-a-hundred-thousand-deep", "keras.config", {"config.json": b'{"a":' * 100_000}),
    _archive(
        "config-with-a-number-of-a-million-digits", "keras.config", {"config.json": b'{"a": ' + b"9" * 1_000_000 + b"}"}
    ),
    _archive("config-that-is-not-utf8", "keras.config", {"config.json": b'{"class_name": "\xff"}'}),
    _archive("config-with-one-name-twice", "keras.config", {"config.json": b'{"class_name": "A", "class_name": "B"}'}),
    _archive(
        "config-that-is-a-bomb",
        "limits.exceeded",
        lambda: {"config.json": b" " * (300 << 20)},
        method=zipfile.ZIP_DEFLATED,
    ),
    _archive("metadata-that-is-a-list", "keras.metadata", {"metadata.json": b"[" * 1000}),
    _archive("metadata-left-out", "keras.metadata", {"metadata.json": None}),
    _archive("changed-byte-in-the-weights", "archive.crc-mismatch", {}, damage=_flip(b"\0\0\x80\x3f\0\0\x80\x3f")),
    _archive("changed-byte-in-the-config", "archive.crc-mismatch", {}, damage=_flip(b"Sequential")),
    _archive("member-that-climbs-out", "archive.unsafe-name", {"../../outside.h5": b"x"}),
    _archive("two-weights-of-one-dataset-name", "hdf5.soft-link", lambda: {"model.weights.h5": _soft_link()}),
]


def _soft_link() -> bytes:
    import h5py
    import numpy as np

    from hdf5_bytes import hdf5

    def build(file: object) -> None:
        file["layers/dense/vars/0"] = np.ones(4, np.float32)  # type: ignore[index]
        file["layers/dense/vars/1"] = h5py.SoftLink("/layers/dense/vars/0")  # type: ignore[index]

    return hdf5(build)
