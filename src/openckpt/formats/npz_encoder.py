"""Writing npz: the members of `numpy.savez`, stored, and one more that says what NumPy forgets (docs/format/npz.md).

    weights.npz = zip( "dense/kernel.npy", ..., "openckpt.json" )
    openckpt.json = {"version": 1, "tensors": {NAME: {"key": KEY, "dtype": "bfloat16", "shape": [2, 3]}}}

``numpy.load`` reads the file. A tensor is named in ``openckpt.json`` where its member alone does not tell key, type and value;
where all of them do there is no such member. Equal tensors give equal bytes: times in the zip are those of 1980.
"""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

from openckpt.formats.carried import BLOBS, Carried, assign_names, blob_of, elements_of
from openckpt.formats.npy import MAGIC
from openckpt.formats.npz import SIDE_NAME, SIDE_VERSION, SUFFIX
from openckpt.storage.archive.names import harmless_path
from openckpt.storage.archive.writing import ZipWriter

if TYPE_CHECKING:
    from openckpt.formats.spec import Array

_NAME_BYTES = 60_000  # the length of a name in a zip is 16 bits
_GROWTH_DIGITS = 21  # of the first side, as NumPy leaves room for
_PADDING = 1024  # bytes that padding to the longest string may always cost


def is_member_name(key: str) -> bool:
    """Return whether a zip gives a member ``key + ".npy"`` back under the same name, on every system."""
    try:
        name = (key + SUFFIX).encode("utf-8")
    except UnicodeEncodeError:
        return False
    plain = harmless_path(key + SUFFIX, backslash_separates=True) == (key + SUFFIX, False)
    return plain and len(name) <= _NAME_BYTES and "\0" not in key and "\\" not in key


def encode_npy_header(descr: str, shape: Sequence[int]) -> bytes:
    """Return the start of a .npy member as NumPy writes it: padded so that the elements begin at a multiple of 64."""
    sizes = ", ".join(map(str, shape)) + ("," if len(shape) == 1 else "")
    text = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': ({sizes}), }}"
    if shape:  # room in which NumPy may let the first side grow
        text += " " * (_GROWTH_DIGITS - len(str(shape[0])))
    width = 2 if len(text) + 1 + 64 < 1 << 16 else 4
    start = len(MAGIC) + 2 + width
    text += " " * (64 - (start + len(text) + 1) % 64) + "\n"
    version = b"\1\0" if width == 2 else b"\2\0"
    return MAGIC + version + len(text).to_bytes(width, "little") + text.encode("ascii")


class NpzWriter:
    """Writes one .npz onto a seekable file, tensor by tensor; nothing is kept but names.

    Args:
        file: empty, opened for writing; it is left open.
        keys: every key that will be added, which settles the names of the members.
    """

    def __init__(self, file: io.RawIOBase | io.BytesIO, keys: Sequence[str]) -> None:
        self._zip = ZipWriter(file)
        self._names = assign_names(keys, is_member_name)
        self._side: dict[str, Carried] = {}

    def add(self, key: str, value: Array, dtype: str) -> None:
        """Write one tensor.

        Args:
            key: one of the keys given at the start, once.
            value: numbers of the numpy type of ``dtype``, or an object array of bytes.
            dtype: TensorFlow's name.
        """
        import numpy as np

        name, shape = self._names[key], value.shape
        if dtype in BLOBS:
            elements = _spelled(value) if dtype == "string" else None
            if elements is None:
                elements = np.frombuffer(blob_of(value, dtype), np.uint8)
            told = elements.dtype.kind == "S"
        else:
            elements = elements_of(value, dtype)
            told = elements.dtype.kind != "V" and elements.dtype.name == dtype
        if not told or name != key:
            self._side[name] = Carried(key, dtype, shape)
        header = encode_npy_header(elements.dtype.str, elements.shape)
        data = elements.reshape(-1).view(np.uint8).data if elements.nbytes else memoryview(b"")
        self._zip.add(name + SUFFIX, (header, data))

    def finish(self) -> None:
        """Write what NumPy forgets, and the directory of the zip."""
        if self._side:
            tensors = {
                name: {"key": said.key, "dtype": said.dtype, "shape": list(said.shape)}
                for name, said in sorted(self._side.items())
            }
            text = json.dumps({"version": SIDE_VERSION, "tensors": tensors}, separators=(",", ":")).encode("ascii")
            self._zip.add(SIDE_NAME, (text,))
        self._zip.finish()

    def abandon(self) -> None:
        """Let go of the file without finishing it."""
        self._zip.abandon()


def _spelled(value: Array) -> Array | None:
    """Return strings as fixed-size bytes, or None where that would change them or cost much more than they are long."""
    import numpy as np

    elements: list[bytes] = value.reshape(-1).tolist()
    longest = max(map(len, elements), default=0)
    if any(element.endswith(b"\0") for element in elements):
        return None  # NumPy takes zeros at the end for padding
    if longest * len(elements) > 2 * sum(map(len, elements)) + _PADDING:
        return None
    return np.array(elements, f"S{max(longest, 1)}").reshape(value.shape)
