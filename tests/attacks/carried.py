"""Hostile words about tensors in npz and plain HDF5 (docs/format): types, shapes and keys that are not those of the bytes."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from typing import Any

from attacks.attack import Attack
from containers import zipped


def _npy(array: Any) -> bytes:
    import numpy as np

    out = io.BytesIO()
    np.save(out, array)
    return out.getvalue()


def _side(tensors: Any, *, version: Any = 1) -> str:
    return json.dumps({"version": version, "tensors": tensors})


def _npz(name: str, code: str, text: str | bytes, *, array: Any = None, more: int = 0) -> Attack:
    def build() -> dict[str, bytes]:
        import numpy as np

        members: dict[str, bytes | str] = {"a.npy": _npy(np.zeros(8, np.uint8) if array is None else array())}
        members |= {f"b{number}.npy": _npy(np.zeros(1, np.uint8)) for number in range(more)}
        return {"x.npz": zipped({**members, "openckpt.json": text})}

    return Attack(name, build, "x.npz", code)


def _says(name: str, code: str, dtype: Any, shape: Any, *, key: Any = "a", array: Any = None) -> Attack:
    return _npz(name, code, _side({"a": {"key": key, "dtype": dtype, "shape": shape}}), array=array)


def _h5(name: str, code: str, build: Callable[[Any], None], *, version: str = '{"version": 1}') -> Attack:
    def make() -> dict[str, bytes]:
        from hdf5_bytes import hdf5

        def whole(file: Any) -> None:
            file.attrs["openckpt"] = version
            build(file)

        return {"x.h5": hdf5(whole)}

    return Attack(name, make, "x.h5", code)


def _dataset(value: Callable[[], Any] | None = None, **attributes: Any) -> Callable[[Any], None]:
    def build(file: Any) -> None:
        import numpy as np

        data = file.create_dataset("a", data=np.zeros(8, np.uint8) if value is None else value())
        for name, text in attributes.items():
            data.attrs[name] = text

    return build


def _lengths() -> Any:
    """String lengths that add up to more than there is."""
    import numpy as np

    return np.frombuffer(b"\xff\xff\xff\xff\x0f" + bytes(20), np.uint8)


CASES = [
    _npz("npz-side-no-json", "npz.side-entry", "{"),
    _npz("npz-side-nested-100000-deep", "npz.side-entry", "[" * 100_000 + "]" * 100_000),
    _npz("npz-side-a-list", "npz.side-entry", "[1]"),
    _npz("npz-side-without-tensors", "npz.side-entry", '{"version": 1}'),
    _npz("npz-side-of-tomorrow", "npz.side-version", _side({}, version=2)),
    _npz("npz-side-version-of-a-million-digits", "npz.side-entry", '{"tensors":{},"version":' + "9" * 1_000_000 + "}"),
    _npz("npz-side-entry-a-number", "npz.side-entry", _side({"a": 5})),
    _npz(
        "npz-side-too-many-fields", "npz.side-entry", _side({"a": {"key": "a", "dtype": "qint8", "shape": [8], "x": 1}})
    ),
    _npz(
        "npz-two-members-one-key",
        "npz.side-entry",
        _side({"a": {"key": "b0", "dtype": "uint8", "shape": [8]}}),
        more=1,
    ),
    _npz(
        "npz-member-taken-away",
        "npz.side-entry",
        _side({"gone": {"key": "gone", "dtype": "bfloat16", "shape": [2]}}),
    ),
    _says("npz-type-that-is-none", "npz.side-entry", "float31", [8]),
    _says("npz-type-a-path", "npz.side-entry", "../../etc/passwd", [8]),
    _says("npz-type-a-list", "npz.side-entry", ["string"], [8]),
    _says("npz-resource", "npz.side-entry", "resource", [8]),
    _says("npz-wider-than-the-bytes", "npz.side-entry", "float64", [8]),
    _says("npz-opaque-where-numbers-are", "npz.side-entry", "bfloat16", [4]),
    _says("npz-shape-of-more-elements", "npz.side-entry", "quint8", [9]),
    _says("npz-shape-that-overflows", "npz.side-entry", "quint8", [1 << 62, 1 << 62]),
    _says("npz-shape-of-minus-one", "npz.side-entry", "quint8", [-8]),
    _says("npz-shape-of-a-float", "npz.side-entry", "quint8", [8.0]),
    _says("npz-shape-of-truth", "npz.side-entry", "uint8", [True]),
    _says("npz-rank-of-300", "limits.exceeded", "quint8", [1] * 299 + [8]),
    _says("npz-more-strings-than-bytes", "npz.side-entry", "string", [1 << 40]),
    _says("npz-strings-with-lying-lengths", "npz.side-entry", "string", [1], array=_lengths),
    _says("npz-variants-with-lying-lengths", "npz.side-entry", "variant", [1], array=_lengths),
    _says("npz-key-of-half-a-pair", "npz.side-entry", "uint8", [8], key="\ud800"),
    _says("npz-key-that-is-no-text", "npz.side-entry", "uint8", [8], key=None),
    _h5("hdf5-version-of-tomorrow", "hdf5.carried-version", _dataset(), version='{"version": 99}'),
    _h5("hdf5-version-no-json", "hdf5.carried", _dataset(), version="{"),
    _h5("hdf5-type-that-is-none", "hdf5.carried", _dataset(openckpt_dtype="float31")),
    _h5("hdf5-wider-than-the-bytes", "hdf5.carried", _dataset(openckpt_dtype="float64")),
    _h5("hdf5-shape-of-more-elements", "hdf5.carried", _dataset(openckpt_dtype="quint8", openckpt_shape="[9]")),
    _h5("hdf5-shape-that-overflows", "hdf5.carried", _dataset(openckpt_shape=f"[{1 << 62}, {1 << 62}]")),
    _h5("hdf5-shape-a-program", "hdf5.carried", _dataset(openckpt_shape="__import__('os').abort()")),
    _h5("hdf5-shape-nested-deeply", "hdf5.carried", _dataset(openckpt_shape="[" * 50_000)),
    _h5("hdf5-rank-of-300", "limits.exceeded", _dataset(openckpt_shape=json.dumps([1] * 299 + [8]))),
    _h5(
        "hdf5-more-strings-than-bytes", "hdf5.carried", _dataset(openckpt_dtype="string", openckpt_shape=f"[{1 << 40}]")
    ),
    _h5(
        "hdf5-strings-with-lying-lengths",
        "hdf5.carried",
        _dataset(_lengths, openckpt_dtype="string", openckpt_shape="[1]"),
    ),
    _h5("hdf5-key-not-in-hex", "hdf5.carried", _dataset(openckpt_key_hex="0g")),
]
