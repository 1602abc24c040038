"""Writing plain HDF5: one dataset per key, by libhdf5 through a file object (what lies where: `openckpt.formats.hdf5.plain`).

Equal tensors give equal bytes: no times are tracked, and libhdf5 keeps to the oldest format, which every program reads.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from openckpt.formats.carried import BLOBS, HOSTS, OPAQUE, blob_of, elements_of
from openckpt.formats.hdf5.library import LIBRARY_ERRORS, first_line
from openckpt.formats.hdf5.plain import (
    DTYPE,
    FILE,
    KEY,
    KEY_HEX,
    MOST_DIMENSIONS,
    OPAQUE_TYPE,
    SHAPE,
    VERSION,
    encode_shape,
    plan_paths,
)

if TYPE_CHECKING:
    import h5py
    from h5py import h5d, h5g, h5t

    from openckpt.formats.spec import Array


class WatchedFile(io.RawIOBase):
    """What h5py writes through; keeps the first error of the file, which libhdf5 would swallow."""

    def __init__(self, file: io.RawIOBase | io.BytesIO) -> None:
        self._file = file
        self.error: BaseException | None = None

    def write(self, data: Any) -> int:
        """Write at the position."""
        if self.error is None:
            try:
                return self._file.write(data) or 0
            except BaseException as error:
                self.error = error
        return memoryview(data).nbytes  # nothing is worth writing any more

    def readinto(self, buffer: Any) -> int:
        """Read at the position."""
        if self.error is None:
            try:
                data = self._file.read(memoryview(buffer).nbytes) or b""
                memoryview(buffer).cast("B")[: len(data)] = data
                return len(data)
            except BaseException as error:
                self.error = error
        return memoryview(buffer).nbytes

    def seek(self, offset: int, whence: int = 0) -> int:
        """Move."""
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        """Return the position."""
        return self._file.tell()

    def truncate(self, size: int | None = None) -> int:
        """Set the size of the file."""
        if self.error is None:
            try:
                return self._file.truncate(size)
            except BaseException as error:
                self.error = error
        return size or 0

    def flush(self) -> None:
        """Nothing: the file has no buffer."""


class HDF5Writer:
    """Writes one plain HDF5 file, tensor by tensor. It must be finished or abandoned, whatever happens.

    Args:
        file: empty, open for reading and writing; it is left open.
        keys: every key that will be added, which settles the paths.
    """

    def __init__(self, file: io.RawIOBase | io.BytesIO, keys: Sequence[str]) -> None:
        import h5py
        from h5py import h5d, h5p, h5t

        self._paths = plan_paths(keys)
        self._watched = WatchedFile(file)
        self._file: h5py.File | None = h5py.File(self._watched, "w", libver="earliest", locking=False)
        try:
            self._plan = h5p.create(h5p.DATASET_CREATE)
            self._plan.set_layout(h5d.CONTIGUOUS)
            self._plan.set_obj_track_times(False)
            self._text_plan = self._plan.copy()
            self._plan.set_fill_time(h5d.FILL_TIME_NEVER)  # strings of variable length must have one
            self._links = h5p.create(h5p.LINK_CREATE)
            self._links.set_create_intermediate_group(True)
            self._links.set_char_encoding(h5t.CSET_UTF8)
            _write_text(self._file["/"].id, FILE, f'{{"version": {VERSION}}}'.encode())
        except BaseException:
            self.abandon()
            raise

    def add(self, key: str, value: Array, dtype: str) -> None:
        """Write one tensor.

        Args:
            key: one of the keys given at the start, once.
            value: numbers of the numpy type of ``dtype``, or an object array of bytes.
            dtype: TensorFlow's name.

        Raises:
            OSError: as the file says; or what libhdf5 had against it.
        """
        try:
            self._add(key, value, dtype)
        except LIBRARY_ERRORS as error:
            if self._watched.error is None:
                raise OSError(f"the HDF5 library cannot write {key!r}: {first_line(error)}") from error
        self._check()

    def _add(self, key: str, value: Array, dtype: str) -> None:
        import numpy as np
        from h5py import h5d, h5s

        stored, kind, told = _stored(value, dtype)
        flat = stored.ndim > MOST_DIMENSIONS
        shape = (stored.size,) if flat else stored.shape
        path = self._paths[key]
        assert self._file is not None
        plan = self._text_plan if stored.dtype.kind == "O" else self._plan
        space = h5s.create_simple(shape)
        did: h5d.DatasetID = h5d.create(self._file.id, path.encode(), kind, space, dcpl=plan, lcpl=self._links)
        raw = key.encode("utf-8", "surrogateescape")
        if b"\0" in raw:
            _write_text(did, KEY_HEX, raw.hex().encode())
        else:
            _write_text(did, KEY, raw)
        if not told:
            _write_text(did, DTYPE, dtype.encode())
        if flat or shape != value.shape:
            _write_text(did, SHAPE, encode_shape(value.shape).encode())
        if dtype in OPAQUE:
            _write_text(did, OPAQUE_TYPE, dtype.encode())
        if stored.size:
            # Python's own strings have no type in the file, and without one h5py converts them.
            memory = None if stored.dtype.kind == "O" else kind
            did.write(h5s.ALL, h5s.ALL, np.ascontiguousarray(stored).reshape(shape), mtype=memory)

    def finish(self) -> None:
        """Write what libhdf5 still holds."""
        self._close()
        self._check()

    def abandon(self) -> None:
        """Let go of the file without finishing it; never raises."""
        if self._watched.error is None:
            self._watched.error = OSError("abandoned")  # nothing more is written
        with suppress(*LIBRARY_ERRORS):
            self._close()

    def _close(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            try:
                file.close()
            except LIBRARY_ERRORS as error:
                if self._watched.error is None:
                    raise OSError(f"the HDF5 library cannot finish the file: {first_line(error)}") from error

    def _check(self) -> None:
        if self._watched.error is not None:
            raise self._watched.error


def _stored(value: Array, dtype: str) -> tuple[Array, h5t.TypeID, bool]:
    """Return the elements to write, their type in the file, and whether that type tells TensorFlow's."""
    import h5py
    import numpy as np
    from h5py import h5t

    if dtype == "string" and not any(b"\0" in element for element in value.reshape(-1).tolist()):
        return value, h5t.py_create(h5py.string_dtype(_charset(value)), logical=True), True
    if dtype in BLOBS:
        blob = np.frombuffer(blob_of(value, dtype), np.uint8)
        return blob, h5t.py_create(blob.dtype, logical=True), False
    elements = elements_of(value, dtype)
    return elements, h5t.py_create(elements.dtype, logical=True), dtype not in HOSTS


def _charset(value: Array) -> str:
    try:
        for element in value.reshape(-1).tolist():
            element.decode("utf-8")
    except UnicodeDecodeError:
        return "ascii"  # any bytes
    return "utf-8"


def _write_text(oid: h5g.GroupID | h5d.DatasetID, name: str, text: bytes) -> None:
    """Write an attribute of variable length: one of fixed length would have to fit into the object's header."""
    import h5py
    import numpy as np
    from h5py import h5a, h5s, h5t

    value: Array = np.empty((), object)
    value[()] = text
    charset = "utf-8"
    try:
        text.decode("utf-8")
    except UnicodeDecodeError:
        charset = "ascii"
    kind = h5t.py_create(h5py.string_dtype(charset), logical=True)
    h5a.create(oid, name.encode(), kind, h5s.create(h5s.SCALAR)).write(value)
