"""Updating the manifest, the file ``checkpoint``, by TensorFlow's rules (formats 4.1, 4.2)."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from typing import TypeAlias

from openckpt.errors import CheckpointError, ConflictError, warn
from openckpt.formats.manifest import Manifest, encode_manifest, parse_manifest
from openckpt.formats.names import MANIFEST_NAME
from openckpt.storage.commit import Commit
from openckpt.storage.disk import DISK
from openckpt.storage.writable import Durability, WritableStore
from openckpt.writing.keys import refuse_url
from openckpt.writing.place import settle_dead

ManifestUpdate: TypeAlias = Callable[[bytes | None], bytes]
"""From the present bytes of a manifest, None where there is none, to the new ones."""


def advanced_manifest(
    present: bytes | None, name: str, directory: str, *, clock: Callable[[], float] = time.time
) -> bytes:
    """Return the manifest of a directory after a save: ``name`` is the newest, behind those that were kept before.

    However an entry for it was spelled before, absolute or relative, it is in the list once. Timestamps are written where
    every entry has one. A manifest that cannot be read is replaced, with a warning.
    """
    old = Manifest("")
    if present:
        try:
            old = parse_manifest(present, MANIFEST_NAME)
        except CheckpointError as error:
            warn(f"the manifest is replaced, it could not be read: {error}")
    paths = old.all_model_checkpoint_paths or ((old.model_checkpoint_path,) if old.model_checkpoint_path else ())
    times = old.all_model_checkpoint_timestamps
    timed = len(times) == len(paths)
    own = os.path.abspath(os.path.join(directory, name))
    kept = [
        (path, times[n] if timed else 0.0)
        for n, path in enumerate(paths)
        if os.path.abspath(os.path.join(directory, path)) != own
    ]
    kept.append((name, clock()))
    return encode_manifest(
        Manifest(
            name,
            tuple(path for path, _ in kept),
            tuple(at for _, at in kept) if timed else (),
            old.last_preserved_timestamp,
        )
    )


def only_manifest(name: str) -> bytes:
    """Return the manifest that names one checkpoint and nothing else, as ``tf.train.Checkpoint.save`` writes it (formats 6.7)."""
    return encode_manifest(Manifest(name, (name,)))


def check_name(stem: str, prefix: str) -> None:
    """Raise ConflictError where a checkpoint would have the manifest's name (``writing.manifest-name``), as TensorFlow does."""
    if stem == MANIFEST_NAME:
        raise ConflictError("writing.manifest-name", prefix, "the checkpoint has the name of the manifest beside it")


def update_checkpoint_state(
    save_dir: str | os.PathLike[str],
    model_checkpoint_path: str | os.PathLike[str],
    all_model_checkpoint_paths: Sequence[str | os.PathLike[str]] | None = None,
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
        save_relative_paths: store absolute paths relative to the directory, so that it can be moved; else they stay as
            given. Relative paths become relative to the directory where that is relative too (formats 4.2).
        durability: see `openckpt.save`.
        store: where to write; the local disk when not given.

    Raises:
        ValueError: as many timestamps as paths are needed.
        ConflictError: the manifest would have the name of the checkpoint itself (``writing.manifest-name``; TensorFlow
            raises RuntimeError).
        UnsupportedError: the directory is a URL (``writing.prefix``).
        OSError: the system refused.
    """
    store = DISK if store is None else store
    name = MANIFEST_NAME if latest_filename is None else latest_filename
    directory, newest = os.fsdecode(save_dir), os.fsdecode(model_checkpoint_path)
    refuse_url(store, directory)
    directory = directory.rstrip("/") or directory[:1]
    if os.path.abspath(os.path.join(directory, name)) == os.path.abspath(newest):
        raise ConflictError("writing.manifest-name", newest, "the checkpoint has the name of the manifest beside it")
    data = encode_checkpoint_state(
        directory,
        newest,
        all_model_checkpoint_paths,
        all_model_checkpoint_timestamps,
        last_preserved_timestamp,
        save_relative_paths=save_relative_paths,
    )
    replace_manifest(directory, data, name=name, durability=durability, store=store)


def encode_checkpoint_state(
    directory: str,
    newest: str,
    paths: Sequence[str | os.PathLike[str]] | None = None,
    times: Sequence[float] | None = None,
    last_preserved: float | None = None,
    *,
    save_relative_paths: bool,
) -> bytes:
    """Return the bytes that `update_checkpoint_state` writes for the same arguments; raises its ValueError."""
    listed = list(map(os.fsdecode, paths or ()))
    if not listed or listed[-1] != newest:
        listed.append(newest)
    at = tuple(map(float, times or ()))
    if at and len(at) != len(listed):
        raise ValueError(f"{len(listed)} paths and {len(at)} timestamps: as many of each are needed")
    written = tuple(_as_entry(directory, path, relative=save_relative_paths) for path in listed)
    return encode_manifest(Manifest(written[-1], written, at, float(last_preserved or 0.0)))


def replace_manifest(
    directory: str, data: bytes, *, name: str = MANIFEST_NAME, durability: Durability, store: WritableStore
) -> None:
    """Put these bytes in the place of a directory's manifest; raises OSError."""
    with Commit(store, directory, name, durability=durability, settle=settle_dead, wait=True) as commit:
        commit.switch(commit.put(data), name)


def _as_entry(directory: str, path: str, *, relative: bool) -> str:
    """Return a path as the manifest of a directory has it (formats 4.2)."""
    if os.path.isabs(directory):
        return os.path.relpath(path, directory) if relative and os.path.isabs(path) else path
    if os.path.isabs(path) and not relative:
        return path
    # Both made absolute first: TensorFlow makes an absolute path relative twice here, and it then leads elsewhere.
    return os.path.relpath(os.path.abspath(path), os.path.abspath(directory or "."))
