"""`open`: resolve a path, open the format's reader over it, and try again where a trainer was faster."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from openckpt.errors import CheckpointError, ConflictError, CorruptionError, PathNotFoundError
from openckpt.formats.names import INDEX_SUFFIX
from openckpt.formats.spec import TensorReader
from openckpt.limits import DEFAULT_LIMITS, Limits, no_memory
from openckpt.opening.reader import CheckpointReader
from openckpt.opening.resolving import resolve
from openckpt.opening.target import Target
from openckpt.storage import LOCAL

if TYPE_CHECKING:
    from openckpt.findings import Progress
    from openckpt.formats.hdf5.child import HDF5Child

_ATTEMPTS = 10


def open(
    path: str | bytes | os.PathLike[str] | os.PathLike[bytes],
    *,
    limits: Limits = DEFAULT_LIMITS,
    verify: bool = True,
    progress: Progress | None = None,
) -> CheckpointReader:
    """Open the checkpoint that a path means.

    Args:
        path: a prefix; any file of a checkpoint; a manifest; a directory (the checkpoint its manifest names, else its latest
            complete one: `CheckpointReader.how` says which); a SavedModel directory; an archive, or ``ARCHIVE!INNER``; a
            ``.h5``, ``.keras``, ``.safetensors`` or ``.npz`` file, whatever it is called.
        limits: caps against hostile files.
        verify: whether reading checks checksums by default.
        progress: called now and then while an archive is read.

    Raises:
        PathNotFoundError: there is no such checkpoint; names the nearest prefixes. Also a FileNotFoundError and a KeyError.
        FormatError: it is damaged, of a version or kind that is not read, or larger than ``limits``.
        UnsafeError: it could only be read by running code that it contains.
        OSError: the system refused.
    """
    name = os.fsdecode(path)
    try:
        return _open(name, limits, verify, progress)
    except MemoryError:
        raise no_memory(name, "what says what is in this file") from None
    except OSError as error:
        if not isinstance(error, CheckpointError):
            error.add_note(f"while opening the checkpoint {name!r}")
        raise


def _open(name: str, limits: Limits, verify: bool, progress: Progress | None) -> CheckpointReader:
    for attempt in range(_ATTEMPTS):
        last = attempt == _ATTEMPTS - 1
        target = resolve(LOCAL, name, limits=limits, progress=progress)
        try:
            return CheckpointReader(open_target(target, limits=limits), target, verify=verify)
        except BaseException as error:
            for archive in target.archives:
                archive.close()
            if isinstance(error, ConflictError) and not last:
                continue
            if not isinstance(error, FileNotFoundError):
                raise
            # Resolved, and gone before it was opened: a trainer swept it. Whatever the path means now is the answer.
            if last:
                raise PathNotFoundError(
                    "path.vanished", target.display, "another program keeps removing this checkpoint"
                ) from error
    raise AssertionError("the last attempt returns or raises")


def open_target(target: Target, *, limits: Limits = DEFAULT_LIMITS, child: HDF5Child | None = None) -> TensorReader:
    """Open the reader of the target's format; with ``child`` libhdf5 parses in that process and not in this one.

    Raises:
        FormatError, OSError: as that reader does; an index that is something else altogether is called by its name.
    """
    store, path = target.store, target.path
    match target.format:
        case "bundle-v2":
            from openckpt.formats.bundle import open_bundle

            try:
                return open_bundle(store, path, limits=limits)
            except CorruptionError as error:
                if error.code in ("table.bad-magic", "table.too-short"):
                    _raise_what_it_is(target, error)
                raise
        case "table-v1":
            from openckpt.formats.v1 import open_v1

            return open_v1(store, path, limits=limits)
        case "hdf5":
            from openckpt.formats.keras_h5 import open_hdf5

            return open_hdf5(store, path, limits=limits, child=child)
        case "keras-v3":
            from openckpt.formats.keras_archive import open_keras

            return open_keras(store, path, limits=limits, child=child)
        case "safetensors":
            from openckpt.formats.safetensors import open_safetensors

            return open_safetensors(store, path, limits=limits)
        case "npz":
            from openckpt.formats.npz import open_npz

            return open_npz(store, path, limits=limits)
    raise AssertionError(f"no reader for {target.format!r}")


def _raise_what_it_is(target: Target, error: CorruptionError) -> None:
    """Raise the error that names what lies under the name of an index (a git-lfs pointer, an error page), if it is known."""
    from openckpt.opening.sniffing import what_it_is

    source = target.store.open(target.path + INDEX_SUFFIX)
    try:
        better = what_it_is(source)
    finally:
        source.close()
    if better is not None:
        raise better from error
