"""The architecture beside the weights: what ``config=`` of a Checkpoint is, as the string tensor ``_OPENCKPT_CONFIG``.

    {"openckpt": "0.1.0", "frameworks": {"keras": "3.15.1 (jax)"}, "config": {"num_layers": 2, ...},
     "provenance": {"host": ..., "time": ..., "commit": ...}}                     only where the program asks for it

Inside of the checkpoint, because a file beside it would be left behind by others' copies and sweeps; stock TensorFlow does not look
at it. Nothing here is ever executed: it is compared with the program's own config when a restore does not fit, and read by people.
"""

from __future__ import annotations

import dataclasses
import enum
import json
import math
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from openckpt.errors import MismatchError, UnsupportedError, Where
from openckpt.training.live import LiveGraph

if TYPE_CHECKING:
    from openckpt.formats.spec import Array

CONFIG_KEY = "_OPENCKPT_CONFIG"

_FRAMEWORKS = ("flax", "jax", "keras", "numpy", "optax", "tensorflow", "tf_keras", "torch")
_DEEPEST = 100
_SHOWN = 4
_BESIDES = frozenset(("name", "build_config", "build_input_shape", "module", "registered_name"))
"""of Keras's configs, what two programs of the same architecture may differ in"""


class Difference(NamedTuple):
    """One place where two configs differ; a place that one of them lacks is "nothing" there."""

    name: str
    file: str
    program: str


def encode_config(config: object, live: LiveGraph, *, provenance: bool, path: str) -> bytes:
    """Return what is stored under `CONFIG_KEY`.

    Args:
        config: numbers, text, lists, dicts, dataclasses, and objects with ``get_config``, as Keras has.
        live: the program; its frameworks' versions are told.
        provenance: tell host, time and git commit too; two saves of the same are not the same bytes then.
        path: for errors.

    Raises:
        UnsupportedError: something in it is none of these (``training.not-plain``).
    """
    package: Any = sys.modules["openckpt"]  # the face, which nothing here may import
    said: dict[str, Any] = {"openckpt": package.__version__, "frameworks": dict(_versions(live))}
    if config is not None:
        said["config"] = plain_config(config, Where(path, CONFIG_KEY))
    if provenance:
        said["provenance"] = _provenance()
    return json.dumps(said, separators=(",", ":"), allow_nan=False).encode()


def _versions(live: LiveGraph) -> Iterator[tuple[str, str]]:
    """Yield the frameworks of the program's objects."""
    kinds = {type(node.object) for node in live.nodes}
    roots = {base.__module__.partition(".")[0] for kind in kinds for base in kind.__mro__}
    for name in _FRAMEWORKS:
        module = sys.modules.get({"jaxlib": "jax"}.get(name, name))
        if name not in roots or module is None:
            continue
        version = str(getattr(module, "__version__", "?"))
        yield name, f"{version} ({module.backend.backend()})" if name == "keras" else version


def _provenance() -> dict[str, str]:
    import datetime
    import platform
    import subprocess

    try:
        git = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, timeout=10, check=False)
        commit = git.stdout.strip() if git.returncode == 0 else ""
    except (OSError, subprocess.TimeoutExpired):
        commit = ""
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    return {"host": platform.node(), "time": now, **({"commit": commit} if commit else {})}


def plain_config(value: object, where: Where, name: tuple[str, ...] = ()) -> Any:
    """Return a config as JSON has it; raises as `encode_config`."""
    if value is None or isinstance(value, (bool, str)) or type(value) is int:
        return value
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else repr(float(value))
    if hasattr(value, "__qualname__"):  # a class, a function
        return f"{value.__module__}.{value.__qualname__}"
    if isinstance(value, enum.Enum):
        return value.name
    if dataclasses.is_dataclass(value):
        value = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if len(name) > _DEEPEST:
        raise UnsupportedError("training.not-plain", where, f"the config is nested too deeply: {'.'.join(name[:5])}...")
    if isinstance(value, Mapping):
        return {str(key): plain_config(item, where, (*name, str(key))) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain_config(item, where, (*name, str(number))) for number, item in enumerate(value)]
    if isinstance(value, (set, frozenset)):
        return [plain_config(item, where, name) for item in sorted(value, key=str)]
    if callable(getattr(value, "get_config", None)):
        return _of_object(value, where, name)
    if callable(getattr(value, "tolist", None)):  # NumPy's numbers and arrays
        return plain_config(value.tolist(), where, name)  # type: ignore[attr-defined]
    if hasattr(value, "__fspath__"):
        return str(value)
    if "dtype" in type(value).__name__.lower():  # of NumPy, torch, TensorFlow
        return str(getattr(value, "name", value))
    raise _refusal(value, where, name, "is neither a number, text, a list, a dict nor an object with get_config")


def _of_object(value: Any, where: Where, name: tuple[str, ...]) -> dict[str, Any]:
    try:
        config = value.get_config()
    except NotImplementedError as error:
        why = f"cannot tell its config: {' '.join(str(error).split()).partition('. ')[0]}"
        raise _refusal(value, where, name, why) from None
    return {"class_name": type(value).__name__, "config": plain_config(config, where, (*name, "config"))}


def _refusal(value: object, where: Where, name: tuple[str, ...], why: str) -> UnsupportedError:
    place = f"{'.'.join(name)} of the config" if name else "the config"
    return UnsupportedError("training.not-plain", where, f"{place}, a {type(value).__name__}, {why}")


# -- comparing ----------------------------------------------------------------------------------------------------------


def stored_text(value: Array) -> bytes:
    """Return the text of a stored tensor that should be one string; b"" of any other."""
    text: object = value[()] if value.shape == () else b""
    return text if isinstance(text, bytes) else b""


def compare_config(stored: bytes, config: object, path: str) -> list[Difference]:
    """Return where the stored config and the program's differ, as far as that can change the shape of a model."""
    own = _comparable(plain_config(config, Where(path, CONFIG_KEY)))
    try:
        found = json.loads(stored).get("config")
        return [] if found is None else list(_differences(_comparable(found), own, ""))
    except (ValueError, TypeError, AttributeError, RecursionError):  # what is stored is none of ours
        return [Difference("config", "unreadable", "")]


def _comparable(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _comparable(item) for key, item in value.items() if key not in _BESIDES}
    if isinstance(value, list):  # a Sequential has an input layer only when it is built
        return [
            _comparable(item) for item in value if not isinstance(item, dict) or item.get("class_name") != "InputLayer"
        ]
    return value


def _differences(stored: Any, own: Any, name: str) -> Iterator[Difference]:
    if isinstance(stored, dict) and isinstance(own, dict):
        for key in {**stored, **own}:
            place = f"{name}.{key}" if name else key
            yield from _differences(stored.get(key, _ABSENT), own.get(key, _ABSENT), place)
    elif isinstance(stored, list) and isinstance(own, list) and len(stored) == len(own):
        for number, (one, other) in enumerate(zip(stored, own, strict=True)):
            yield from _differences(one, other, f"{name}.{number}" if name else str(number))
    elif stored != own:
        yield Difference(name or "config", _short(stored), _short(own))


_ABSENT = object()


def _short(value: Any) -> str:
    if value is _ABSENT:
        return "nothing"
    if isinstance(value, list) and any(isinstance(item, (dict, list)) for item in value):
        return f"{len(value)} items"
    text = json.dumps(value)
    return text if len(text) <= 40 else text[:37] + "..."


def text_of(differences: Sequence[Difference]) -> str:
    """Return the sentence: ``the configs differ - file: num_layers=2; program: num_layers=3``."""
    file = _listed((one.name, one.file) for one in differences)
    program = _listed((one.name, one.program) for one in differences)
    more = f" and {len(differences) - _SHOWN} more" if len(differences) > _SHOWN else ""
    return f"the configs differ - file: {file}; program: {program}{more}"


def _listed(pairs: Iterable[tuple[str, str]]) -> str:
    return ", ".join(f"{name}={value}" for name, value in list(pairs)[:_SHOWN])


def explain(error: MismatchError, differences: Sequence[Difference]) -> MismatchError:
    """Put what is different in the configs in front of what does not fit because of it."""
    if differences:
        error.message = f"{text_of(differences)}; {error.message}"
    return error
