"""HDF5 files as bytes, written by stock h5py, for tests and attacks."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np


def hdf5(build: Callable[[Any], None], **options: Any) -> bytes:
    """Return the file that ``build(h5py.File)`` makes."""
    import h5py

    buffer = io.BytesIO()
    with h5py.File(buffer, "w", **options) as file:
        build(file)
    return buffer.getvalue()


def datasets(values: Mapping[str, Any], **options: Any) -> bytes:
    """Return a file of plain datasets; ``options`` go to ``create_dataset``."""

    def build(file: Any) -> None:
        for path, value in values.items():
            file.create_dataset(path, data=value, **options)

    return hdf5(build)


def legacy_weights(layers: Mapping[str, Mapping[str, Any]], *, version: str = "2.2.4") -> Callable[[Any], None]:
    """Return a builder of the legacy Keras layout: layer -> weight name -> value, in this order."""

    def build(group: Any) -> None:
        group.attrs["layer_names"] = [name.encode() for name in layers]
        group.attrs["backend"] = b"tensorflow"
        group.attrs["keras_version"] = version.encode()
        for name, weights in layers.items():
            layer = group.create_group(name)
            layer.attrs["weight_names"] = [weight.encode() for weight in weights]
            for weight, value in weights.items():
                layer.create_dataset(weight, data=value)

    return build


ONES = np.ones((2, 3), np.float32)


def opened(data: bytes, **options: Any) -> Any:
    """Return the reader of a file of these bytes."""
    from openckpt.formats.keras_h5 import open_hdf5
    from openckpt.storage.memory import MemoryStore

    return open_hdf5(MemoryStore({"x.h5": data}), "x.h5", **options)


def codes(reader: Any) -> list[str]:
    """Return the codes of the doctor's findings."""
    return [finding.code for finding in reader.validate()]
