"""What a run's directory says to the manager that takes it over: its manifest, and what a dead manager left unsaid.

    checkpoint                     the manifest: the newest step, the listed ones, their times (formats 7.1)
    checkpoint.run.openckpt-lock   held while a manager saves; its first line says which numbers may be there unlisted

    {"saves": "ckpt", "numbers": [7]}

A manager that dies between the index of step 7 and the manifest leaves a whole checkpoint that nothing lists: the next one
takes it up. Nothing here is written; entries of a manifest are followed only within its own directory.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass, field

from openckpt.errors import CheckpointError, warn
from openckpt.formats.manifest import Manifest, parse_manifest
from openckpt.formats.names import MANIFEST_NAME, RUN_STEM, is_same_v1_set, parse_v1_shard_name, prefix_of, step_of
from openckpt.limits import DEFAULT_LIMITS
from openckpt.opening.choosing import group_name, home_of, inside
from openckpt.opening.grouping import group_names
from openckpt.opening.listing import what_is_missing
from openckpt.opening.saves import save_state
from openckpt.opening.sizes import find_cut_shard
from openckpt.storage import FileStat, Store, read_whole
from openckpt.storage.temporary import lock_name, stem_of
from openckpt.training.notes import METRICS_KEY, Note, parse_note
from openckpt.training.retention import SavedStep

_RECORD_BYTES = 4096
_MOST_NUMBERS = 16  # in a record: one that was being saved, and those that several deaths in a row had left
_NOTE_BYTES = 1 << 20


@dataclass(slots=True)
class Recovered:
    """What was found.

    Attributes:
        newest: the newest whole checkpoint, None where there is none.
        steps: the listed ones, oldest first.
        unlisted: numbers of those among them that the manifest does not list.
        last_preserved: see `openckpt.training.retention.Plan`.
        named: the newest checkpoint as the manifest writes it, "" where there is no manifest that could be read.
        highest: the highest number of a checkpoint of this name on the disk, 0 where there is none.
        damaged: those that were found not to be whole; not every one was looked at.
    """

    newest: str | None = None
    steps: list[SavedStep] = field(default_factory=list)
    unlisted: list[int] = field(default_factory=list)
    last_preserved: float = 0.0
    named: str = ""
    highest: int = 0
    damaged: set[str] = field(default_factory=set)


def recover(store: Store, directory: str, name: str, now: float) -> Recovered:
    """Return the state of a run. What is not as its manifest says is a `CheckpointWarning`.

    Args:
        store: where.
        directory: of the manifest.
        name: what its checkpoints are called; it may lead into subdirectories.
        now: seconds since 1970.

    Raises:
        OSError: the system refused.
    """
    numbers = numbers_on_disk(store, directory, name)
    found = Recovered(highest=max(numbers, default=0))
    manifest, said = read_run_manifest(store, directory)
    if manifest is None:
        found.last_preserved = now - 1.0  # as TensorFlow's: a step of the same moment counts as later
    else:
        found.named = manifest.model_checkpoint_path
        _take_list(store, directory, manifest, now, found)
    _take_unlisted(store, directory, name, now, found)
    if found.unlisted:
        found.newest = found.steps[-1].path
        return found
    candidates = [step.path for step in reversed(found.steps)]
    candidates += [store.join(directory, f"{name}-{number}") for number in numbers]
    if manifest is not None:
        named = path_of_entry(store, directory, manifest.model_checkpoint_path)
        why = "it lies in another directory" if named is None else why_not_whole(store, named)
        if not why:
            found.newest = named
            return found
        said = f"the manifest names {manifest.model_checkpoint_path!r}, but {why}"
    for path in dict.fromkeys(candidates):
        if not why_not_whole(store, path):
            found.newest = path
            break
        found.damaged.add(path)
    if found.newest is not None:
        warn(f"{directory or '.'}: {said}; the latest complete checkpoint is {found.newest!r}")
    elif said != _NO_MANIFEST:
        warn(f"{directory or '.'}: {said}, and there is no other checkpoint")
    return found


def _take_list(store: Store, directory: str, manifest: Manifest, now: float, found: Recovered) -> None:
    """Take the listed steps up, by TensorFlow's rules about times."""
    last = manifest.last_preserved_timestamp
    if not last <= now:  # NaN too
        warn(f"{directory or '.'}: the manifest is of {last - now:.0f} seconds from now; the clock was set back")
        last = now
    found.last_preserved = last
    paths = manifest.all_model_checkpoint_paths
    times = manifest.all_model_checkpoint_timestamps or (last,) * len(paths)
    outside = 0
    for entry, at in dict(zip(paths, times, strict=False)).items():
        at = min(at, now)
        path = path_of_entry(store, directory, entry)
        outside += path is None
        if path is not None and at > last:
            found.steps.append(SavedStep(path, step_of(path), at))
    gone = find_gone(store, [step.path for step in found.steps])
    found.steps = [step for step in found.steps if step.path not in gone]
    if outside:
        warn(f"{directory or '.'}: {outside} checkpoints that the manifest lists lie elsewhere; nothing removes them")


def _take_unlisted(store: Store, directory: str, name: str, now: float, found: Recovered) -> None:
    """Take up what a dead manager has committed and not listed."""
    if save_state(store, store.join(directory, RUN_STEM)) != "dead":
        return
    listed = {step.path for step in found.steps}
    newest = step_of(found.named) if found.named else None
    for number in _record_in(store, store.join(directory, lock_name(RUN_STEM)), name):
        path = store.join(directory, f"{name}-{number}")
        if newest is not None and number <= newest:
            continue  # others have gone on since
        if path not in listed and not why_not_whole(store, path):
            found.steps.append(SavedStep(path, number, now))
            found.unlisted.append(number)


_NO_MANIFEST = "there is no manifest"


def read_run_manifest(store: Store, directory: str) -> tuple[Manifest | None, str]:
    """Return the manifest of a run and ""; None, and why, where there is none that can be read."""
    path = store.join(directory, MANIFEST_NAME)
    try:
        data = read_whole(store, path, limits=DEFAULT_LIMITS, cap="manifest_bytes", what="the manifest's size")
        return parse_manifest(data, store.display(path)), ""
    except (FileNotFoundError, NotADirectoryError):
        return None, _NO_MANIFEST
    except CheckpointError as error:
        return None, error.message


def path_of_entry(store: Store, directory: str, entry: str) -> str | None:
    """Return where an entry of a manifest leads; None where that is out of its directory, or through a link to another."""
    between = inside(home_of(store, directory), entry)
    name = entry.rpartition("/")[2]
    if between is None or name in ("", ".", "..") or "\0" in entry:
        return None
    path = directory
    for part in between:
        path = store.join(path, part)
        stat = store.stat(path)
        if stat is not None and stat.link:
            return None
    return store.join(path, name)


def why_not_whole(store: Store, prefix: str) -> str:
    """Return why a checkpoint cannot be restored whole, as far as names and sizes tell; "" where it can."""
    directory, name = store.split(prefix)
    stats = [
        stat
        for stat in _scan(store, directory)
        if name in (stat.name, prefix_of(stat.name)) or is_same_v1_set(name, stat.name)
    ]
    listing = group_names(store, directory, stats)
    groups = [group for group in listing.named(group_name(name)) if group.format in ("bundle-v2", "table-v1")]
    if not groups:
        return "it is not there"
    for group in groups:
        if group.complete:
            cut = find_cut_shard(store, group)
            return "" if cut is None else cut.message
    return what_is_missing(groups[0])


def find_gone(store: Store, prefixes: Iterable[str]) -> set[str]:
    """Return those of which no file is left: somebody removed them, and died, or did not say so in the manifest."""
    names: dict[str, set[str]] = {}
    gone = set()
    for path in prefixes:
        directory, name = store.split(path)
        if directory not in names:
            stats = [stat for stat in _scan(store, directory) if stem_of(stat.name) is None]
            parts = (parse_v1_shard_name(stat.name) for stat in stats)
            names[directory] = {prefix_of(stat.name) or stat.name for stat in stats}
            names[directory] |= {part[0] for part in parts if part is not None}
        part = parse_v1_shard_name(name)
        if (name if part is None else part[0]) not in names[directory]:
            gone.add(path)
    return gone


def read_note(store: Store, prefix: str) -> Note:
    """Return what a manager was told of a step; an empty note where there is none."""
    from openckpt.formats.bundle import open_bundle

    try:
        with closing(open_bundle(store, prefix)) as reader:
            if METRICS_KEY not in reader:
                return Note()
            dtype, shape, nbytes = reader.spec(METRICS_KEY)
            if dtype != "string" or shape != () or (nbytes or 0) > _NOTE_BYTES:
                return Note()
            return parse_note(reader.read(METRICS_KEY).item())
    except (OSError, CheckpointError):
        return Note()


def size_of(store: Store, prefix: str) -> int:
    """Return the bytes of all files of a checkpoint."""
    directory, name = store.split(prefix)
    return sum(stat.size for stat in _scan(store, directory) if prefix_of(stat.name) == name)


def encode_run_record(name: str, numbers: Sequence[int]) -> bytes:
    """Return the first line of a run's lock."""
    return json.dumps({"saves": name, "numbers": list(numbers)}).encode()


def _record_in(store: Store, lock: str, name: str) -> list[int]:
    """Return the numbers in the record of a dead manager of this name: numbers, never paths."""
    try:
        with closing(store.open(lock)) as source:
            line, ended, _ = source.read_at(0, min(source.size, _RECORD_BYTES)).partition(b"\n")
        record = json.loads(line) if ended else {}
        numbers = record["numbers"] if record["saves"] == name else []
        return [number for number in numbers[:_MOST_NUMBERS] if type(number) is int and abs(number) < 1 << 63]
    except (OSError, CheckpointError, ValueError, KeyError, TypeError, RecursionError):
        return []


def numbers_on_disk(store: Store, directory: str, name: str) -> list[int]:
    """Return the numbers of the checkpoints of a name that have any file, the highest first."""
    below, stem = store.split(store.join(directory, name))
    prefixes = {prefix_of(stat.name) for stat in _scan(store, below) if stat.name.startswith(f"{stem}-")}
    steps = ((prefix, step_of(prefix)) for prefix in prefixes if prefix is not None)
    return sorted((step for prefix, step in steps if step is not None and prefix == f"{stem}-{step}"), reverse=True)


def _scan(store: Store, directory: str) -> list[FileStat]:
    try:
        return store.scan(directory)
    except (FileNotFoundError, NotADirectoryError):
        return []
