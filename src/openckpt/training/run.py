"""The steps of one run on the disk: saved and listed, swept, listed again - what a `CheckpointManager` does to files.

    1  the lock of the run        one manager at a time; its first line says what may lie there unlisted after a death
    2  commit of the checkpoint   the manifest in it: the new step and all listed ones
    3  retention                  each step index first; what a reader has open stays for the next time
    4  the manifest again         where steps went, as TensorFlow, whose manager can take the directory over at any moment

A death between any two of these leaves the newest step whole and listed, or the one before it; the next save tidies up.
"""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress

from openckpt.errors import ConflictError, Where, warn
from openckpt.formats.manifest import Manifest, encode_manifest
from openckpt.formats.names import INDEX_SUFFIX, RUN_STEM, step_of
from openckpt.storage.commit import Commit
from openckpt.storage.pending import doing
from openckpt.storage.writable import Durability, WritableStore
from openckpt.training.primary import Rank
from openckpt.training.recovering import (
    encode_run_record,
    find_gone,
    numbers_on_disk,
    read_run_manifest,
    recover,
    why_not_whole,
)
from openckpt.training.retention import Retention, SavedStep, plan_retention
from openckpt.writing import SavedPath, remove_checkpoint
from openckpt.writing.manifests import ManifestUpdate, replace_manifest
from openckpt.writing.place import settle_dead

Write = Callable[[ManifestUpdate | bool], SavedPath]
"""Saves the checkpoint of a step; gets what its commit does to the manifest."""


class Run:
    """The steps of one run.

    Attributes:
        latest: the newest whole checkpoint, None where there is none.
        steps: the listed ones by path, oldest first.
        highest: the highest number of a checkpoint of this name that lay there before.
        damaged: the paths that somebody found damaged, and nobody saved anew.
        saved: the step that was saved last.
        written: the paths of all that were.
    """

    def __init__(
        self,
        store: WritableStore,
        directory: str,
        name: str,
        rules: Retention,
        *,
        writes: bool,
        rank: Rank | None,
        durability: Durability,
        clock: Callable[[], float],
    ) -> None:
        self._store, self._directory, self._name = store, directory, name
        self._rules, self._writes, self._rank = rules, writes, rank
        self._durability: Durability = durability
        self._clock = clock
        self._pinned: set[str] = set()
        self._is_warned = False
        self._time = 0.0
        now = self.now()
        found = recover(store, directory, name, now)
        self.latest = found.newest
        self.steps = {step.path: step for step in found.steps}
        self.highest = found.highest
        self.damaged = found.damaged
        self.saved: SavedStep | None = None
        self.written: set[str] = set()
        self._unlisted = found.unlisted
        self._found = set(self.steps)  # what a dead manager had begun to remove may be among them
        self._named = found.named
        self._last_preserved = found.last_preserved
        self._time = math.nextafter(found.last_preserved, math.inf)

    def now(self) -> float:
        """Return the time; never before one that was given out or preserved: the clock may do anything."""
        said = float(self._clock())
        self._time = max(said, self._time) if math.isfinite(said) else max(self._time, 1.0)
        return self._time

    def older(self) -> Iterator[str]:
        """Yield what is whole beside the latest, the newest first: the listed ones, then those that were kept for good."""
        latest = step_of(self.latest or "")
        numbers = numbers_on_disk(self._store, self._directory, self._name)
        kept = [n for n in numbers if latest is not None and n < latest]
        paths = [self._store.join(self._directory, f"{self._name}-{number}") for number in kept]
        for path in dict.fromkeys([*reversed(self.steps), *paths]):
            if path != self.latest and not why_not_whole(self._store, path):
                yield path

    # -- a save -------------------------------------------------------------------------------------------------------

    def save(self, new: SavedStep, number: int, write: Write) -> SavedPath:
        """Save a step, list it, and let go of those that no rule keeps. Where `has_saved` says so, what is raised came too late.

        Raises:
            ConflictError: see `CheckpointManager.save`.
            CheckpointError, OSError: as ``write``; then nothing has changed.
        """
        listed = self._with(new)
        data = self._manifest(listed, new.path)
        with self._locked(new.path, number):
            try:
                saved = self._write(new.path, data, write)
            except BaseException:
                if self._stands(data):  # an interrupt when all was done
                    self._take(new, listed)
                raise
            self._take(dataclasses.replace(new, nbytes=saved.nbytes), listed)
            self._sweep()
        return saved

    def has_saved(self, new: SavedStep) -> bool:
        """Return whether this step is there and listed, whatever `save` raised."""
        return self.saved is not None and (self.saved.path, self.saved.time) == (new.path, new.time)

    def _write(self, path: str, data: bytes, write: Write) -> SavedPath:
        """Write a checkpoint and its place in the manifest: both or neither."""
        if "/" not in self._name:
            return write(lambda _: data)
        # The manifest lies in another directory than the checkpoint, and follows it.
        index = path + INDEX_SUFFIX
        was_there = self._store.stat(index) is not None
        try:
            saved = write(False)
            self._put(data)
        except BaseException as error:
            if not (was_there or isinstance(error, ConflictError) or self._stands(data)):
                self.written.add(path)  # where it is there, and stays
                with suppress(OSError, ConflictError):
                    if self._store.stat(index) is not None:
                        self._remove(path)
            raise
        return saved

    def _take(self, step: SavedStep, listed: Mapping[str, SavedStep]) -> None:
        """Remember what stands on the disk now."""
        self.steps = {**listed, step.path: step}
        self.latest = step.path
        self.saved = step
        self.written.add(step.path)
        self.damaged.discard(step.path)
        self._named = self._entry(step.path)
        self._unlisted = []

    def _stands(self, data: bytes) -> bool:
        """Return whether these are the bytes of the manifest."""
        try:
            present, _ = read_run_manifest(self._store, self._directory)
        except OSError:
            return False
        return present is not None and encode_manifest(present) == data

    def follow(self, new: SavedStep) -> None:
        """Do what `save` does to the lists, and nothing on the disk: another process saves."""
        self.steps, self.latest = self._with(new), new.path
        self._named = self._entry(new.path)
        self._let_go(self._decide())

    def pin(self, path: str) -> None:
        """Keep a step for good, however its path is spelled; one that is not listed nobody removes."""
        entry = self._entry(path)
        path = next((listed for listed in self.steps if self._entry(listed) == entry), "")
        if not path or path in self._pinned:
            return
        self._pinned.add(path)
        try:
            if self._writes:
                with self._locked(path):
                    newest = self.latest or path
                    self._put(self._manifest(self.steps, newest))
                    self._named, self._unlisted = self._entry(newest), []
        except BaseException:
            self._pinned.discard(path)
            raise

    def _with(self, new: SavedStep) -> dict[str, SavedStep]:
        return {**{path: step for path, step in self.steps.items() if path != new.path}, new.path: new}

    # -- retention ----------------------------------------------------------------------------------------------------

    def _sweep(self) -> None:
        before = self._manifest(self.steps, self.latest or "")
        try:
            try:
                self._let_go(self._decide())
            finally:
                after = self._manifest(self.steps, self.latest or "")
                if after != before:
                    self._put(after)
        except (OSError, ConflictError) as error:
            # Not an error of the save, which is done: the next one tries again.
            message = f"{self.latest} is saved, but what should have gone after it could not be removed or unlisted"
            warn(f"{message}: {error}")

    def _decide(self) -> list[str]:
        """Return the paths that no rule keeps, and forget those that are kept for good."""
        for path in find_gone(self._store, self._found & self.steps.keys()):
            del self.steps[path]  # by now the save has swept up after the dead
        self._found = set()
        steps, best = tuple(self.steps.values()), self._rules.best
        plan = plan_retention(steps, self._rules, self._last_preserved, self._pinned, self.damaged)
        if (
            plan.deleted
            and best is not None
            and not self._is_warned
            and not any(best in step.metrics for step in steps)
        ):
            self._is_warned = True
            warn(f"no step has the metric {best!r}, so none is kept for it: save(metrics={{{best!r}: ...}})")
        self._last_preserved = plan.last_preserved
        for step in plan.preserved:
            del self.steps[step.path]
        return [step.path for step in plan.deleted]

    def _let_go(self, paths: Collection[str]) -> None:
        refusals: list[Exception] = []
        gone: list[str] = []
        for path in paths:
            try:
                if not self._writes or self._remove(path):  # else somebody has it open
                    gone.append(path)
            except (OSError, ConflictError) as error:
                refusals.append(error)
        if self._writes and self._durability == "power-loss":
            # Gone for good before the manifest forgets them: nobody would look for data that a power cut brings back.
            for directory in {self._store.split(path)[0] for path in gone}:
                with doing("sync of the directory", directory or "."):
                    self._store.sync_directory(directory)
        for path in gone:
            del self.steps[path]
        if refusals:
            raise refusals[0]

    def _remove(self, path: str) -> bool:
        return remove_checkpoint(path, with_meta=False, durability=self._durability, store=self._store)

    # -- the manifest and the lock ------------------------------------------------------------------------------------

    def _entry(self, path: str) -> str:
        return os.path.relpath(os.path.abspath(path), os.path.abspath(self._directory or "."))

    def _manifest(self, steps: Mapping[str, SavedStep], newest: str) -> bytes:
        # A pinned step is written as one of long ago: no manager takes it up again after a restart, TensorFlow's neither.
        times = tuple(0.0 if path in self._pinned else step.time for path, step in steps.items())
        return encode_manifest(
            Manifest(self._entry(newest), tuple(map(self._entry, steps)), times, self._last_preserved)
        )

    def _put(self, data: bytes) -> None:
        replace_manifest(self._directory, data, durability=self._durability, store=self._store)

    @contextmanager
    def _locked(self, path: str, *numbers: int) -> Iterator[None]:
        """Hold the run's lock, in which stands what may lie there unlisted should this process die."""
        who = "" if self._rank is None else f"; this is {self._rank}"
        # A commit without files: it makes the directory, so that a power cut leaves it, and takes it away if nothing comes.
        durability = self._durability if self._store.stat(self._directory) is None else "process-crash"
        commit = Commit(self._store, self._directory, RUN_STEM, durability=durability, settle=settle_dead)
        with ExitStack() as stack:
            try:
                stack.enter_context(commit)
            except ConflictError:
                message = f"another process or thread saves into this directory right now{who}"
                raise ConflictError("training.busy-run", self._directory or ".", message) from None
            self._check_not_overtaken(path, who)
            if numbers:
                commit.publish({}, record=encode_run_record(self._name, [*self._unlisted, *numbers]))
            yield

    def _check_not_overtaken(self, path: str, who: str) -> None:
        present, _ = read_run_manifest(self._store, self._directory)
        if present is not None and present.model_checkpoint_path != self._named:
            raise ConflictError(
                "training.overtaken",
                Where(path),
                f"another program, or Checkpoint.save in this one, has saved into this directory since this manager looked{who}",
                expected=f"{self._named!r} as the newest of the manifest" if self._named else "no manifest",
                found=repr(present.model_checkpoint_path),
            )
