"""Python state as JSON beside arrays: what a string tensor ``py_state`` holds. Never pickled, nothing in it is executed.

{"epoch": 3, "best": 0.5}                        as it is
(1, "a")                                         {"!tuple": [1, "a"]}
b"\\x00"                                          {"!bytes": "AA=="}
nan, 1+2j                                        {"!float": "nan"}, {"!complex": [1.0, 2.0]}
{0: "a"} and keys that begin with "!"            {"!dict": [[0, "a"]]}
numpy.array(...)                                 {"!array": "path/to/it"}, the array itself is a child of the node
numpy.float32(3)                                 {"!number": "path/to/it"}, the same with an array of rank 0
numpy.array(["a"]), numpy.array([b"a"])          {"!text": "path/to/it"}, {"!raw": "path/to/it"}
torch.ones(3), jax.numpy.ones(3)                 {"!torch": "path/to/it"}, {"!jax": "path/to/it"}
jax.random.key(0)                                {"!keys": ["threefry2x32", "path/to/it"]}
Counter(...)                                     {"!counter": [[element, count]]}

Subclasses of dict and tuple come back as dicts and tuples.
"""

from __future__ import annotations

import base64
import json
import math
import sys
from collections import Counter
from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any

from openckpt.errors import CorruptionError, UnsupportedError, Where, with_article
from openckpt.training.leaves import text_array

if TYPE_CHECKING:
    from openckpt.formats.spec import Array

_DEEPEST = 200
_SHOWN = 12  # parts of a path, in a message


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
    if isinstance(value, Counter):
        return {
            "!counter": [[_plain(key, path, arrays, where), _plain(n, path, arrays, where)] for key, n in value.items()]
        }
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
    kind, array = _as_array(value)
    if array is not None:
        name = "/".join(path) or "value"
        if name in arrays:
            raise _refusal(value, path, where, "shares its path with another array")
        arrays[name] = array
        return {kind: [value.dtype._impl.name, name] if kind == "!keys" else name}  # type: ignore[attr-defined]
    raise _refusal(value, path, where, "can be saved neither as JSON nor as an array")


_TEXTS = {"U": "!text", "T": "!text", "S": "!raw"}
"""kind of a NumPy type -> tag"""
_FRAMEWORKS = {"!torch": "torch", "!jax": "jax"}
"""tag -> the package whose arrays it stands for; ``adapters/<package>_values.py`` turns them into NumPy's and back"""


def _as_array(value: object) -> tuple[str, Array | None]:
    """Return ``(tag, array)`` of an array of any framework, None where this is none or one that cannot be stored."""
    import numpy as np

    if isinstance(value, (np.generic, np.ndarray)):
        array = np.asarray(value)
        storable = array.dtype.kind not in "OMmV" or array.dtype.isbuiltin == 2
        tag = _TEXTS.get(array.dtype.kind, "!array") if isinstance(value, np.ndarray) else "!number"
        return tag, array if storable and not isinstance(value, np.ma.MaskedArray) else None
    roots = {base.__module__.partition(".")[0].removesuffix("lib") for base in type(value).__mro__}
    for tag, package in _FRAMEWORKS.items():
        if package in roots and hasattr(value, "dtype"):
            values = _values_of(package)
            if values.why_not_stored(value):
                return tag, None
            return (
                ("!keys", values.key_data(value))
                if tag == "!jax" and values.is_key(value)
                else (tag, values.to_array(value))
            )
    if hasattr(value, "__array__") and hasattr(value, "dtype") and hasattr(value, "shape"):
        try:
            return "!array", np.asarray(value)
        except (TypeError, RuntimeError):
            pass
    return "", None


def _values_of(package: str) -> Any:
    return import_module(f"openckpt.training.adapters.{package}_values")


def _refusal(value: object, path: tuple[str, ...], where: Where, why: str) -> UnsupportedError:
    shown = path if len(path) < _SHOWN else (*path[:_SHOWN], "...")
    name = ".".join(shown) or "the value"
    return UnsupportedError(
        "training.not-plain", where, f"{name} of its state, {with_article(type(value).__name__)}, {why}"
    )


def decode_state(data: bytes, arrays: Mapping[str, Array], where: Where) -> Any:
    """Return the state of its JSON and its arrays.

    Raises:
        CorruptionError: it is not such JSON, or an array is missing (``training.bad-state``).
    """
    try:
        return _value(json.loads(data), arrays)
    except (ValueError, LookupError, TypeError, ArithmeticError, AttributeError, RuntimeError) as error:
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
            case "!text" | "!raw":
                return text_array(arrays[held], "U" if tag == "!text" else "S")
            case "!number":
                return arrays[held][()]
            case "!counter":
                return Counter({_hashable(_value(key, arrays)): _value(count, arrays) for key, count in held})
            case "!torch" | "!jax":
                package = _FRAMEWORKS[tag]
                # A program without the framework gets NumPy's arrays.
                return _values_of(package).from_array(arrays[held]) if package in sys.modules else arrays[held]
            case "!keys":
                impl, name = held
                return _values_of("jax").wrapped(arrays[name], impl) if "jax" in sys.modules else arrays[name]
            case _ if tag.startswith("!"):
                raise ValueError(f"unknown kind {tag!r}")
    return {key: _value(item, arrays) for key, item in plain.items()}


def _hashable(key: Any) -> Any:
    hash(key)
    return key
