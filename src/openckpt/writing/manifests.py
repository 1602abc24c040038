"""Updating the manifest, the file ``checkpoint``, by TensorFlow's rules (formats 4.1, 4.2)."""

from __future__ import annotations

import os.path
import time
import warnings
from collections.abc import Callable, Sequence

from openckpt.errors import CheckpointError, CheckpointWarning, ConflictError
from openckpt.formats.manifest import Manifest, encode_manifest, parse_manifest
from openckpt.formats.names import MANIFEST_NAME
from openckpt.storage.commit import Commit
from openckpt.storage.disk import DISK
from openckpt.storage.writable import Durability, WritableStore


def advanced_manifest(present: bytes | None, name: str, *, clock: Callable[[], float] = time.time) -> bytes:
    """Return the manifest of a directory after a save: ``name`` is the newest, behind those that were kept before.

    Timestamps are written where every entry has one. A manifest that cannot be read is replaced, with a warning.
    """
    old = Manifest("")
    if present:
        try:
            old = parse_manifest(present, MANIFEST_NAME)
        except CheckpointError as error:
            warnings.warn(f"the manifest is replaced, it could not be read: {error}", CheckpointWarning, stacklevel=2)
    paths = old.all_model_checkpoint_paths or ((old.model_checkpoint_path,) if old.model_checkpoint_path else ())
    times = old.all_model_checkpoint_timestamps
    timed = len(times) == len(paths)
    kept = [(path, times[n] if timed else 0.0) for n, path in enumerate(paths) if path != name]
    kept.append((name, clock()))
    return encode_manifest(
        Manifest(
            name,
            tuple(path for path, _ in kept),
            tuple(at for _, at in kept) if timed else (),
            old.last_preserved_timestamp,
        )
    )


def update_checkpoint_state(
    save_dir: str,
    model_checkpoint_path: str,
    all_model_checkpoint_paths: Sequence[str] | None = None,
    latest_filename: str | None = None,
    all_model_checkpoint_timestamps: Sequence[float] | None = None,
    last_preserved_timestamp: float | None = None,
    *,
    save_relative_paths: bool = False,
    durability: Durability = "power-loss",
    store: WritableStore | None = None,
) -> None:
    """Write the manifest of a directory, as ``tf.train.update_checkpoint_state`` does, and durably.

    Args:
        save_dir: the directory.
        model_checkpoint_path: the newest checkpoint; appended to the list where that does not end with it.
        all_model_checkpoint_paths: those that are kept, oldest first; only the newest when not given.
        latest_filename: name of the manifest, ``checkpoint`` when not given.
        all_model_checkpoint_timestamps: seconds since 1970, one per path.
        last_preserved_timestamp: seconds since 1970.
        save_relative_paths: store paths relative to the directory, so that it can be moved. When False, absolute paths
            stay as given, and relative ones become relative to the directory where that is relative too (formats 4.2).
        durability: see `openckpt.save`.
        store: where to write; the local disk when not given.

    Raises:
        ValueError: as many timestamps as paths are needed.
        ConflictError: the manifest would have the name of the checkpoint itself (``writing.manifest-name``; TensorFlow
            raises RuntimeError).
        OSError: the system refused.
    """
    store = DISK if store is None else store
    name = MANIFEST_NAME if latest_filename is None else latest_filename
    paths = list(all_model_checkpoint_paths or ())
    if not paths or paths[-1] != model_checkpoint_path:
        paths.append(model_checkpoint_path)
    times = tuple(float(at) for at in all_model_checkpoint_timestamps or ())
    if times and len(times) != len(paths):
        raise ValueError(f"{len(paths)} paths and {len(times)} timestamps: as many of each are needed")
    if os.path.abspath(os.path.join(save_dir, name)) == os.path.abspath(model_checkpoint_path):
        raise ConflictError(
            "writing.manifest-name", model_checkpoint_path, "the checkpoint has the name of the manifest beside it"
        )
    written = [_as_entry(save_dir, path, relative=save_relative_paths) for path in paths]
    manifest = Manifest(written[-1], tuple(written), times, last_preserved_timestamp or 0.0)
    with Commit(store, save_dir, name, durability=durability, wait=True) as commit:
        commit.switch(commit.put(encode_manifest(manifest)), name)


def _as_entry(directory: str, path: str, *, relative: bool) -> str:
    """Return a path as the manifest of a directory has it; both are made absolute first, where TensorFlow goes wrong."""
    if not relative and (os.path.isabs(path) or os.path.isabs(directory)):
        return path
    return os.path.relpath(os.path.abspath(path), os.path.abspath(directory or "."))
