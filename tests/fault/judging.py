"""What a fresh reader makes of a directory: every prefix old, new or absent, and the manifest's newest checkpoint whole."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any

import numpy as np
from numpy.typing import NDArray

from openckpt.errors import CheckpointError, FormatError, PathNotFoundError
from openckpt.formats.manifest import parse_manifest
from openckpt.formats.safetensors import open_safetensors
from openckpt.limits import DEFAULT_LIMITS
from openckpt.opening.opener import open_target
from openckpt.opening.reader import CheckpointReader
from openckpt.opening.resolving import resolve
from openckpt.storage import Store, read_whole
from openckpt.testing import Image

ABSENT = "absent"
ANYTHING = "anything"
"""what a power cut may make of a save that promised only to survive a crash of the program"""
_NO_INDEX = ("path.index-missing", "path.unfinished")  # data without an index: nobody sees a checkpoint


def state_of(tensors: Mapping[str, NDArray[Any]], *, dual: bool) -> str:
    """Return what stands for a checkpoint: keys, types, shapes and bytes, and whether each data file is a safetensors file too."""
    digest = blake2b(digest_size=12)
    digest.update(b"dual" if dual else b"plain")
    for key in sorted(tensors):
        array = np.asarray(tensors[key])
        digest.update(repr((key, array.dtype.str, array.shape)).encode())
        digest.update(array.tobytes() if array.dtype != object else repr(array.tolist()).encode())
    return digest.hexdigest()


def read_state(store: Store, prefix: str) -> str:
    """Return the state of a prefix as a fresh reader finds it, `ABSENT`, or "broken: ..."."""
    try:
        target = resolve(store, prefix)
        with CheckpointReader(open_target(target, limits=DEFAULT_LIMITS), target) as reader:
            dual = all(_is_safetensors(store, path) for path in reader.files[1:])
            return state_of(reader.read_many(), dual=dual)
    except PathNotFoundError:
        return ABSENT
    except CheckpointError as error:
        return ABSENT if error.code in _NO_INDEX else f"broken: {error}"
    except OSError as error:
        return f"broken: {error!r}"


def _is_safetensors(store: Store, path: str) -> bool:
    stat = store.stat(path)
    if stat is not None and not stat.size:
        return True  # a file that only makes the number of files another one
    try:
        open_safetensors(store, path).close()
    except FormatError:
        return False
    return True


def read_latest(store: Store, directory: str) -> str:
    """Return the prefix that the manifest of a directory names, `ABSENT`, or "broken: ..."."""
    path = store.join(directory, "checkpoint")
    try:
        data = read_whole(store, path, limits=DEFAULT_LIMITS, cap="manifest_bytes", what="the manifest's size")
        return store.join(directory, parse_manifest(data, path).model_checkpoint_path)
    except FileNotFoundError:
        return ABSENT
    except CheckpointError as error:
        return f"broken: {error}"


@dataclass
class Expected:
    """What may be seen at one moment.

    Attributes:
        states: prefix -> the states it may be in.
        latest: what the manifest may name.
    """

    states: dict[str, set[str]] = field(default_factory=dict)
    latest: set[str] = field(default_factory=lambda: {ABSENT})

    def copy(self) -> Expected:
        return Expected({prefix: set(states) for prefix, states in self.states.items()}, set(self.latest))


class Judge:
    """Judges images; one that has the very files of an earlier one gets the same answer without being read again."""

    def __init__(self, directory: str) -> None:
        self.directory = directory
        self.reads = 0
        self._known: dict[object, str] = {}

    def verdict(self, image: Image, expected: Expected) -> str:
        """Return what is wrong, "" where nothing is."""
        files: dict[str, list[tuple[str, bytes]]] = {prefix: [] for prefix in expected.states}
        for path, data in image.files.items():
            stem = path.partition(".")[0]
            if stem in files:
                files[stem].append((path, data))
        found = {}
        for prefix, allowed in expected.states.items():
            if ANYTHING in allowed:
                continue
            found[prefix] = state = self._state(image, prefix, sorted(files[prefix]))
            if state not in allowed:
                return f"{prefix} is {state}, not in {sorted(allowed)}"
        if ANYTHING in expected.latest:
            return ""
        latest = self._latest(image)
        if latest not in expected.latest:
            return f"the manifest: {latest}, not in {sorted(expected.latest)}"
        if found.get(latest) == ABSENT:
            return f"the manifest names {latest}, which is not there"
        return ""

    def _state(self, image: Image, prefix: str, files: list[tuple[str, bytes]]) -> str:
        # Temporary files are out of it: that readers pass them by is tested on its own, in test_readers.
        seen = (prefix, *(file for file in files if not file[0].endswith((".openckpt-tmp", ".openckpt-lock"))))
        state = self._known.get(seen)
        if state is None:
            self.reads += 1
            state = self._known[seen] = read_state(image, prefix)
        return state

    def _latest(self, image: Image) -> str:
        data = image.files.get(f"{self.directory}/checkpoint" if self.directory else "checkpoint")
        latest = self._known.get(data)
        if latest is None:
            latest = self._known[data] = read_latest(image, self.directory)
        return latest
