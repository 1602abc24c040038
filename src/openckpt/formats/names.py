"""File names of checkpoints, made and parsed here and nowhere else.

PREFIX.index                        V2 index                        PREFIX.meta               TF1 meta graph
PREFIX.data-SSSSS-of-NNNNN          V2 shard (formats 2.1)          PREFIX-SSSSS-of-NNNNN     V1 shard (formats 3.1)
PREFIX_temp/part-SSSSS-of-NNNNN.*   a save in progress (2.11)       checkpoint                manifest (formats 4)
NAME.tempstate<digits>              a file being written (2.10)     checkpoint.tmp<32 hex>    a manifest being written (4.1)
STEM.openckpt-lock                  held while openckpt saves       STEM.<n>.openckpt-tmp     a file of that save
checkpoint.run.openckpt-lock        held while a manager saves
NAME.weights.json                   index of Keras 3 shards         NAME.safetensors.index.json   index of safetensors shards
"""

from __future__ import annotations

import re

from openckpt.storage.temporary import LOCK_SUFFIX, stem_of

INDEX_SUFFIX = ".index"
META_SUFFIX = ".meta"
MANIFEST_NAME = "checkpoint"
RUN_STEM = f"{MANIFEST_NAME}.run"
"""what the lock of a run's manager is called after"""
TEMP_SUFFIX = "_temp"
"""the directory ``PREFIX_temp`` in which TensorFlow saves"""
KERAS_SHARDS_SUFFIX = ".weights.json"
SAFETENSORS_SHARDS_SUFFIX = ".safetensors.index.json"
SAVED_MODEL_NAMES = ("saved_model.pb", "saved_model.pbtxt")
"""the graph of a SavedModel"""
EXPORT_NAMES = frozenset((*SAVED_MODEL_NAMES, "fingerprint.pb", "keras_metadata.pb"))
"""each of them alone marks the directory of a SavedModel"""

# %05d of an int32. Names come out of archives and manifests too: a number of thousands of digits must not reach int().
_NUMBER = r"([0-9]{5}|[1-9][0-9]{5,9})"
_SHARD = re.compile(rf"(.*)\.data-{_NUMBER}-of-{_NUMBER}", re.DOTALL)
_V1_SHARD = re.compile(rf"(.*)-({_NUMBER}|\?{{5}})-of-{_NUMBER}", re.DOTALL)
_STEP = re.compile(r"-(-?\d+)\Z", re.ASCII)
_TEMPSTATE = re.compile(r"(.*)\.tempstate\d+", re.DOTALL)
_MANIFEST_TEMP = re.compile(r"(.+)\.tmp[0-9a-f]{32}", re.DOTALL)
_PART = re.compile(rf"part-{_NUMBER}-of-{_NUMBER}")


def shard_name(prefix: str, shard: int, count: int) -> str:
    """Return the name of shard ``shard`` of ``count`` of a V2 checkpoint."""
    return f"{prefix}.data-{shard:05d}-of-{count:05d}"


def v1_shard_name(prefix: str, shard: int, count: int) -> str:
    """Return the name of shard ``shard`` of ``count`` of a sharded V1 checkpoint."""
    return f"{prefix}-{shard:05d}-of-{count:05d}"


def v1_pattern(prefix: str, count: int) -> str:
    """Return what a manifest calls the ``count`` shards of a V1 checkpoint."""
    return f"{prefix}-?????-of-{count:05d}"


def parse_shard_name(name: str) -> tuple[str, int, int] | None:
    """Return ``(prefix, shard, count)`` of a V2 data file name, or None."""
    match = _SHARD.fullmatch(name)
    return (match[1], int(match[2]), int(match[3])) if match else None


def parse_v1_shard_name(name: str) -> tuple[str, int | None, int] | None:
    """Return ``(prefix, shard, count)`` of a V1 shard name, shard None for the ``?????`` pattern of manifests, or None."""
    match = _V1_SHARD.fullmatch(name)
    if match is None or name.endswith(INDEX_SUFFIX):
        return None
    return match[1], None if match[3] is None else int(match[3]), int(match[4])


def parse_index_name(name: str) -> str | None:
    """Return the prefix of an index file name, or None. ``.index`` alone is the index of the empty prefix."""
    return name[: -len(INDEX_SUFFIX)] if name.endswith(INDEX_SUFFIX) else None


def prefix_of(name: str) -> str | None:
    """Return the prefix that an index, data, meta or temporary file name belongs to, or None for any other name."""
    temporary = _TEMPSTATE.fullmatch(name)
    if temporary is not None:
        name = temporary[1]
    stem = stem_of(name)
    if stem is not None:
        return stem
    shard = _SHARD.fullmatch(name)
    if shard is not None:
        return shard[1]
    for suffix in (INDEX_SUFFIX, META_SUFFIX):
        if name.endswith(suffix):
            return name[: -len(suffix)]
    return None


def step_of(prefix: str) -> int | None:
    """Return the step in the last part of a prefix: ``ckpt-7`` gives 7, ``checkpoint--1`` gives -1, else None."""
    match = _STEP.search(prefix.rpartition("/")[2])
    return int(match[1]) if match and len(match[1]) < 20 else None


def is_tempstate(name: str) -> bool:
    """Return whether this is a data or index file that a writer had not yet renamed."""
    return _TEMPSTATE.fullmatch(name) is not None


def is_manifest_temp(name: str) -> bool:
    """Return whether this is a manifest that a writer had not yet renamed."""
    return _MANIFEST_TEMP.fullmatch(name) is not None


def parse_unfinished_name(name: str) -> str | None:
    """Return the stem of a lock or temporary file of openckpt's own writer, or None for any other name.

    The stem is the last part of the prefix that is saved, ``checkpoint`` for the manifest.
    """
    return stem_of(name)


def is_save_lock(name: str) -> bool:
    """Return whether this is the lock that openckpt's writer holds while it saves."""
    return name.endswith(LOCK_SUFFIX)


def is_same_v1_set(name: str, other: str) -> bool:
    """Return whether ``name`` - the pattern, a shard or the bare prefix - means the sharded V1 checkpoint called ``other``."""
    mine, theirs = parse_v1_shard_name(name), parse_v1_shard_name(other)
    if theirs is None:
        return False
    return theirs[0] == name or (mine is not None and (mine[0], mine[2]) == (theirs[0], theirs[2]))


def parse_part_name(name: str) -> tuple[int, int] | None:
    """Return ``(part, count)`` of the prefix of one writer's part in a ``_temp`` directory, or None."""
    match = _PART.fullmatch(name)
    return (int(match[1]), int(match[2])) if match else None


def is_part_file(name: str) -> bool:
    """Return whether this is the index or a data file of one writer's part in a ``_temp`` directory."""
    return parse_part_name(name.partition(".")[0]) is not None
