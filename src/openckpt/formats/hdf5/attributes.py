"""The attributes that Keras leaves in an HDF5 file (formats 8.2, 8.3), read under limits.

legacy    root or "model_weights": layer_names, backend, keras_version; each layer group: weight_names
          root: model_config, training_config (JSON); "optimizer_weights": weight_names
          a list above 64 kB is split: layer_names0, layer_names1 ...
Keras 3   each group with "vars": name (the layer's name)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from openckpt.errors import CorruptionError, FormatError, Where
from openckpt.formats.hdf5.heap import GlobalHeap
from openckpt.formats.hdf5.library import LIBRARY_ERRORS, attempt
from openckpt.formats.hdf5.objectheader import find_attribute
from openckpt.formats.hdf5.superblock import Superblock
from openckpt.formats.strictjson import Json, parse_json
from openckpt.limits import MIB, Limits

if TYPE_CHECKING:
    from h5py import h5a, h5d, h5g, h5t

    from openckpt.storage.reading import ByteSource

    ObjectID: TypeAlias = h5g.GroupID | h5d.DatasetID

_PIECES = 10_000
"""most numbered pieces of one split list; a piece holds about 64 kB"""

_COPIED_BYTES = 32 * MIB
"""most bytes that libhdf5 may come to copy for one attribute, were each element as long as the file"""


class Attributes:
    """The text attributes of one file.

    Attributes:
        skipped: names of attributes that are there and were not read, because their size cannot be bounded.
    """

    def __init__(self, source: ByteSource, block: Superblock, limits: Limits) -> None:
        self._source = source
        self._block = block
        self._limits = limits
        self.skipped: list[str] = []
        self._heap: GlobalHeap | None = None

    def count(self, oid: ObjectID) -> int:
        """Return how many attributes the object has."""
        from h5py import h5a

        return attempt(lambda: int(h5a.get_num_attrs(oid)), 0)

    def exists(self, oid: ObjectID, name: str) -> bool:
        """Return whether the object has an attribute of this name."""
        from h5py import h5a

        return attempt(lambda: bool(h5a.exists(oid, name.encode())), False)

    def text(self, oid: ObjectID, name: str) -> str | None:
        """Return one text attribute, or None where it is not there or not one text."""
        values = self._read(oid, name) if self.exists(oid, name) else None
        return values[0] if values is not None and len(values) == 1 else None

    def text_list(self, oid: ObjectID, name: str) -> tuple[str, ...] | None:
        """Return a list of names, its numbered pieces joined, or None where the attribute is not there or no list of text."""
        if self.exists(oid, name):
            return self._read(oid, name)
        pieces: list[str] = []
        for number in range(_PIECES):
            piece = f"{name}{number}"
            if not self.exists(oid, piece):
                return tuple(pieces) if number else None
            pieces += self._read(oid, piece) or ()
        return tuple(pieces)

    def _read(self, oid: ObjectID, name: str) -> tuple[str, ...] | None:
        """Return all elements of a text attribute, None for other types; `CheckpointError` is for the caller's file only."""
        from h5py import h5a, h5t

        try:
            attribute: h5a.AttrID = h5a.open(oid, name.encode())
            tid, count = attribute.get_type(), attribute.get_space().get_simple_extent_npoints()
            if tid.get_class() != h5t.STRING or count <= 0:
                # an empty list has whatever type numpy gave it
                return () if count == 0 else None
            values = (
                self._variable(oid, name, attribute, count)
                if tid.is_variable_str()
                else self._fixed(attribute, tid, count)
            )
        except (*LIBRARY_ERRORS, FormatError):
            return None
        if values is None:
            self.skipped.append(name)
            return None
        shared: dict[bytes, str] = {}  # equal elements are one string, however many there are
        return tuple(shared.setdefault(value, value.decode("utf-8", "surrogateescape")) for value in values)

    def _fixed(self, attribute: h5a.AttrID, tid: h5t.TypeID, count: int) -> list[bytes] | None:
        import numpy as np

        size = tid.get_size()
        if count * size > min(self._source.size, self._limits.json_bytes):
            return None
        array = np.empty(attribute.get_space().get_simple_extent_dims(), f"S{size}")
        attribute.read(array)
        values: list[bytes] = array.reshape(-1).tolist()
        return values

    def _variable(self, oid: ObjectID, name: str, attribute: h5a.AttrID, count: int) -> list[bytes] | None:
        """Read elements from the global heap by our own code; by libhdf5 only where it cannot be made to copy without end."""
        import numpy as np
        from h5py import h5o, string_dtype

        data = find_attribute(self._source, self._block, h5o.get_info(oid).addr, name.encode())
        size = count * (8 + self._block.offset_size)
        if data is not None and len(data) >= size:
            if self._heap is None:
                self._heap = GlobalHeap(self._source, self._block, Where(self._source.path))
            return self._heap.strings(data[:size])
        if count * self._source.size > _COPIED_BYTES:
            return None
        array = np.empty(attribute.get_space().get_simple_extent_dims(), string_dtype("ascii"))
        attribute.read(array)
        return [value.encode() if isinstance(value, str) else value or b"" for value in array.reshape(-1).tolist()]


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
