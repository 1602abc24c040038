"""The only place where libhdf5 gets at a file: through the byte source, so that storage stays the one door to the disk.

A file stays open in libhdf5 only as long as one function runs. h5py cannot be left with an open file whose Python file
object dies first: at the end of the interpreter that is a segmentation fault (h5py 3.14).
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from openckpt.errors import CheckpointError, CorruptionError, Where
from openckpt.limits import no_memory

if TYPE_CHECKING:
    from h5py import h5g

    from openckpt.storage.reading import ByteSource

T = TypeVar("T")

# What h5py raises when libhdf5 says no. MemoryError is not among them: it becomes a LimitError.
LIBRARY_ERRORS = (OSError, RuntimeError, KeyError, ValueError, TypeError, OverflowError, AttributeError, SystemError)


class SourceFile(io.RawIOBase):
    """A `ByteSource` as the Python file object that h5py reads through.

    h5py drops exceptions of its file object, so the first one is kept in ``error`` for whoever called libhdf5.
    """

    def __init__(self, source: ByteSource) -> None:
        self._source = source
        self._at = 0
        self.error: CheckpointError | None = None

    def readable(self) -> bool:
        """Yes."""
        return True

    def seekable(self) -> bool:
        """Yes."""
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        """Move, as the file protocol says."""
        self._at = offset + (0, self._at, self._source.size)[whence]
        return self._at

    def tell(self) -> int:
        """Return the position."""
        return self._at

    def readinto(self, buffer: Any) -> int:
        """Fill ``buffer``, with zeros where the file could not be read (``error`` then says why)."""
        view = memoryview(buffer).cast("B")
        try:
            self._source.read_into(self._at, view)
        except CheckpointError as error:
            self.error = self.error or error
            view[:] = bytes(view.nbytes)
        self._at += view.nbytes
        return view.nbytes


@contextmanager
def opened(source: ByteSource) -> Iterator[h5g.GroupID]:
    """Open ``source`` in libhdf5 for the length of a ``with`` block and give its root group.

    Raises:
        CorruptionError: libhdf5 cannot open it (``hdf5.unreadable``), or the file shrank meanwhile.
    """
    import h5py

    file = SourceFile(source)
    where = Where(source.path)
    try:
        handle = h5py.File(file, "r", locking=False)
    except MemoryError:
        raise no_memory(where, "what the HDF5 library asks for") from None
    except LIBRARY_ERRORS as error:
        raise file.error or unreadable(where, error) from None
    try:
        root: h5g.GroupID = handle["/"].id
        yield root
    except MemoryError:
        raise no_memory(where, "what the HDF5 library asks for") from None
    except CheckpointError:
        if file.error is not None:
            raise file.error from None
        raise
    except LIBRARY_ERRORS as error:
        raise file.error or unreadable(where, error) from None
    finally:
        handle.close()
    if file.error is not None:
        raise file.error


def unreadable(where: Where, error: BaseException, code: str = "hdf5.unreadable") -> CorruptionError:
    """Make the error for whatever h5py raised."""
    return CorruptionError(code, where, f"the HDF5 library cannot read it: {first_line(error)}")


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, for quoting in ours."""
    return (str(error).strip("'\"").splitlines() or [type(error).__name__])[0][:200]


def attempt(call: Callable[[], T], otherwise: T) -> T:
    """Return ``call()``, or ``otherwise`` when libhdf5 refuses."""
    try:
        return call()
    except LIBRARY_ERRORS:
        return otherwise
