"""What a conversion would take the place of, and what of it must stay: directories, and the source itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

from openckpt.conversion.many_files import is_file_of
from openckpt.conversion.targets import PREFIXES
from openckpt.errors import ConflictError, UnsupportedError
from openckpt.formats.names import SAFETENSORS_SHARDS_SUFFIX
from openckpt.storage.pending import doing
from openckpt.writing.place import look_at

if TYPE_CHECKING:
    from openckpt.conversion.job import Job

_NAMES = {"hdf5": "model.h5", "npz": "model.npz", "safetensors": "model.safetensors"}


def refuse_directory(job: Job) -> None:
    """Raise UnsupportedError (``convert.target``) where the target is a directory: as a prefix it would open as what lies in it."""
    present = job.store.stat(job.target)
    if present is not None and present.kind == "dir":
        fix = f"name what to write in it: {job.store.join(job.target, _NAMES.get(job.to, 'model'))}"
        raise UnsupportedError("convert.target", job.target, "this is a directory", fix=fix)


def refuse_source(job: Job) -> None:
    """Raise ConflictError (``convert.same``) where a file of the source, under whatever name, is one that would be replaced."""
    sources = {stat.identity for stat in map(job.store.stat, job.ckpt.files) if stat is not None}
    for path in _replaced(job):
        stat = job.store.stat(path)
        if stat is not None and stat.identity in sources:
            raise ConflictError("convert.same", path, "this is the source itself")


def _replaced(job: Job) -> list[str]:
    """Return the paths that a finished conversion would have replaced or removed."""
    store = job.store
    directory, name = store.split(job.target)
    if directory and store.stat(directory) is None:
        return []
    if job.to in PREFIXES:
        taken = look_at(store, directory, name)
        return [job.face, *(store.join(directory, file) for files in taken.shards.values() for file in files)]
    if not job.is_many_files:
        return [job.face]
    stem = name.removesuffix(SAFETENSORS_SHARDS_SUFFIX)
    with doing("list", directory or "."):
        return [job.face, *(stat.path for stat in store.scan(directory) if is_file_of(stem, stat.name))]
