"""Python state as JSON beside arrays: what a string tensor ``py_state`` holds. Never pickled, nothing in it is executed.

{"epoch": 3, "best": 0.5}                        as it is
(1, "a")                                         {"!tuple": [1, "a"]}
b"\\x00"                                          {"!bytes": "AA=="}
nan, 1+2j                                        {"!float": "nan"}, {"!complex": [1.0, 2.0]}
{0: "a"} and keys that begin with "!"            {"!dict": [[0, "a"]]}
numpy.array(...)                                 {"!array": "path/to/it"}, the array itself is a child of the node
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from openckpt.errors import CorruptionError, UnsupportedError, Where

if TYPE_CHECKING:
    from openckpt.formats.spec import Array

_DEEPEST = 200


def encode_state(value: object, where: Where) -> tuple[bytes, dict[str, Array]]:
    """Return ``(JSON, arrays by their path)`` of plain Python state.

    Raises:
        UnsupportedError: something in it is neither plain nor an array (``training.not-plain``); names it and its path.
    """
    arrays: dict[str, Array] = {}
    plain = _plain(value, (), arrays, where)
    return json.dumps(plain, separators=(",", ":"), ensure_ascii=True, allow_nan=False).encode(), arrays


def _plain(value: object, path: tuple[str, ...], arrays: dict[str, Array], where: Where) -> Any:
    if value is None or isinstance(value, (bool, str)) or type(value) is int:
        return value
    if type(value) is float:
        return value if math.isfinite(value) else {"!float": repr(value)}
    if isinstance(value, bytes):
        return {"!bytes": base64.b64encode(value).decode()}
    if type(value) is complex:
        return {"!complex": [repr(value.real), repr(value.imag)]}
    if len(path) > _DEEPEST:
        raise _refusal(value, path, where, "is nested too deeply")
    if isinstance(value, Mapping):
        names = [str(key) for key in value]
        simple = all(type(key) is str and not key.startswith("!") for key in value)
        items = [
            (key, _plain(item, (*path, name), arrays, where))
            for name, (key, item) in zip(names, value.items(), strict=True)
        ]
        return dict(items) if simple else {"!dict": [[_plain(key, path, arrays, where), item] for key, item in items]}
    if isinstance(value, (list, tuple)):
        items = [_plain(item, (*path, str(n)), arrays, where) for n, item in enumerate(value)]
        return items if isinstance(value, list) else {"!tuple": items}
    array = _as_array(value)
    if array is not None:
        name = "/".join(path) or "value"
        if name in arrays:
            raise _refusal(value, path, where, "shares its path with another array")
        arrays[name] = array
        return {"!array": name}
    raise _refusal(value, path, where, "can be saved neither as JSON nor as an array")


def _as_array(value: object) -> Array | None:
    import numpy as np

    if isinstance(value, np.generic):
        return np.asarray(value)
    if isinstance(value, np.ndarray):
        return value if value.dtype.kind not in "OMmV" or value.dtype.isbuiltin == 2 else None
    if hasattr(value, "__array__") and hasattr(value, "dtype") and hasattr(value, "shape"):
        detached = value.detach().cpu() if hasattr(value, "detach") else value
        try:
            return np.asarray(detached)
        except (TypeError, RuntimeError):
            return None
    return None


def _refusal(value: object, path: tuple[str, ...], where: Where, why: str) -> UnsupportedError:
    name = ".".join(path) or "the value"
    return UnsupportedError("training.not-plain", where, f"{name}, a {type(value).__name__}, {why}")


def decode_state(data: bytes, arrays: Mapping[str, Array], where: Where) -> Any:
    """Return the state of its JSON and its arrays.

    Raises:
        CorruptionError: it is not such JSON, or an array is missing (``training.bad-state``).
    """
    try:
        return _value(json.loads(data), arrays)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise CorruptionError("training.bad-state", where, f"the Python state does not parse: {error!r}") from None


def _value(plain: Any, arrays: Mapping[str, Array]) -> Any:
    if isinstance(plain, list):
        return [_value(item, arrays) for item in plain]
    if not isinstance(plain, dict):
        return plain
    if len(plain) == 1:
        ((tag, held),) = plain.items()
        match tag:
            case "!tuple":
                return tuple(_value(item, arrays) for item in held)
            case "!bytes":
                return base64.b64decode(held, validate=True)
            case "!float":
                return float(held)
            case "!complex":
                return complex(float(held[0]), float(held[1]))
            case "!dict":
                return {_hashable(_value(key, arrays)): _value(item, arrays) for key, item in held}
            case "!array":
                return arrays[held]
            case _ if tag.startswith("!"):
                raise ValueError(f"unknown kind {tag!r}")
    return {key: _value(item, arrays) for key, item in plain.items()}


def _hashable(key: Any) -> Any:
    hash(key)
    return key
