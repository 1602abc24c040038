"""The attributes that Keras leaves in an HDF5 file (formats 8.2, 8.3), read under limits.

legacy    root or "model_weights": layer_names, backend, keras_version; each layer group: weight_names
          root: model_config, training_config (JSON); "optimizer_weights": weight_names
          a list above 64 kB is split: layer_names0, layer_names1 ...
Keras 3   each group with "vars": name (the layer's name)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from openckpt.errors import CorruptionError, Where
from openckpt.formats.hdf5.library import LIBRARY_ERRORS, attempt
from openckpt.formats.strictjson import Json, parse_json
from openckpt.limits import MIB, Limits

if TYPE_CHECKING:
    from h5py import h5a, h5g

_PIECES = 10_000
"""most numbered pieces of one split list; a piece holds about 64 kB"""

_REPEATED_BYTES = 1024 * MIB
"""most bytes that the elements of one variable-length attribute can come to, were each as long as the file"""


def text_list(oid: h5g.GroupID, name: str, file_size: int, limits: Limits) -> tuple[str, ...] | None:
    """Return a list of names, its numbered pieces joined, or None where the attribute is not there or no list of text."""
    if exists(oid, name):
        return _read(oid, name, file_size, limits)
    pieces: list[str] = []
    for number in range(_PIECES):
        piece = f"{name}{number}"
        if not exists(oid, piece):
            return tuple(pieces) if number else None
        pieces += _read(oid, piece, file_size, limits) or ()
    return tuple(pieces)


def text(oid: h5g.GroupID, name: str, file_size: int, limits: Limits) -> str | None:
    """Return one text attribute, or None where it is not there or not one text."""
    if not exists(oid, name):
        return None
    values = _read(oid, name, file_size, limits)
    return values[0] if values is not None and len(values) == 1 else None


def exists(oid: h5g.GroupID, name: str) -> bool:
    """Return whether the object has an attribute of this name."""
    from h5py import h5a

    return attempt(lambda: bool(h5a.exists(oid, name.encode())), False)


def _read(oid: h5g.GroupID, name: str, file_size: int, limits: Limits) -> tuple[str, ...] | None:
    """Return all elements of a text attribute; None for other types and for what is too large to be honest."""
    import numpy as np
    from h5py import h5a, h5t, string_dtype

    try:
        attribute: h5a.AttrID = h5a.open(oid, name.encode())
        tid, space = attribute.get_type(), attribute.get_space()
        count, size = space.get_simple_extent_npoints(), tid.get_size()
        if tid.get_class() != h5t.STRING or count <= 0:
            return () if count == 0 or tid.get_class() == h5t.FLOAT else None
        shape = space.get_simple_extent_dims()
        if tid.is_variable_str():
            # Elements may all point to one long string, so the sum cannot be known before: bound the worst case.
            if count > 1 and count * file_size > _REPEATED_BYTES:
                return None
            array = np.empty(shape, string_dtype("ascii"))
        else:
            if count * size > min(file_size, limits.json_bytes):
                return None
            array = np.empty(shape, f"S{size}")
        attribute.read(array)
    except LIBRARY_ERRORS:
        return None
    return tuple(_decode(value) for value in array.reshape(-1).tolist())


def _decode(value: bytes | str | None) -> str:
    if isinstance(value, bytes):
        return value.decode("utf-8", "surrogateescape")
    return value or ""


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """What a model's configuration says, without building anything from it.

    Attributes:
        class_name: e.g. "Sequential".
        lambda_layers: names of layers that carry code (marshalled bytecode) which Keras would run.
    """

    class_name: str | None
    lambda_layers: tuple[str, ...]


def parse_config(data: bytes, where: Where, code: str) -> ModelConfig:
    """Parse the JSON of a model configuration.

    Raises:
        CorruptionError: not JSON, with ``code``.
    """
    document = parse_json(data, where, code=code)
    if not isinstance(document, dict):
        raise CorruptionError(code, where, "the configuration is not a JSON object")
    class_name = document.get("class_name")
    return ModelConfig(class_name if isinstance(class_name, str) else None, tuple(_lambdas(document)))


def _lambdas(document: Json) -> list[str]:
    """Return the names of the layers under which marshalled code lies, in document order."""
    found: list[str] = []
    pending: list[tuple[Json, str]] = [(document, "lambda")]
    while pending:
        item, layer = pending.pop()
        if isinstance(item, list):
            pending.extend((child, layer) for child in reversed(item))
        elif isinstance(item, dict):
            config = item.get("config")
            name = config.get("name") if isinstance(config, dict) else None
            if isinstance(name, str):
                layer = name
            if item.get("class_name") == "__lambda__" or item.get("function_type") == "lambda":
                found.append(layer)
            pending.extend((child, layer) for child in reversed(item.values()))
    return list(dict.fromkeys(found))
