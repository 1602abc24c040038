"""`CheckpointManager`: the checkpoints of one run, and which of them stay (formats 7.1).

What differs from TensorFlow's on purpose stands in docs/reference/if-you-know-tf-train.md; what it does to files, in
`openckpt.training.run`.
"""

from __future__ import annotations

import dataclasses
import operator
import os
import posixpath
import time
from collections.abc import Callable, Collection, Mapping
from functools import partial
from itertools import chain
from typing import Any, Literal, SupportsFloat, SupportsIndex, SupportsInt, TypeAlias, TypedDict, Unpack, overload

from openckpt.errors import CorruptionError, PathNotFoundError, warn
from openckpt.formats.names import step_of
from openckpt.storage.disk import DISK
from openckpt.storage.writable import Durability, WritableStore
from openckpt.training.background import SaveHandle, finished
from openckpt.training.checkpoint import Checkpoint
from openckpt.training.notes import METRICS_KEY, Note, encode_note
from openckpt.training.primary import find_rank
from openckpt.training.recovering import read_note, size_of, why_not_whole
from openckpt.training.retention import Mode, Policy, Retention, SavedStep, best_steps
from openckpt.training.run import Run
from openckpt.training.saves import Target
from openckpt.writing import SavedPath
from openckpt.writing.keys import refuse_url
from openckpt.writing.manifests import ManifestUpdate

StepCounter: TypeAlias = SupportsInt | Callable[[], SupportsInt] | str
"""A variable that holds the training step, a function that returns it, or the name of a Checkpoint's child that is it."""


class _SaveKeywords(TypedDict, total=False):
    """Of `CheckpointManager.save`, for its overloads."""

    metrics: Mapping[str, SupportsFloat] | None
    timeout: float | None


class CheckpointManager:
    """Saves the steps of one run into one directory, keeps some of them, and finds the newest again.

        manager = openckpt.CheckpointManager(ckpt, "run", max_to_keep=3, best="loss")
        manager.restore_or_initialize()
        for step in range(...):
            ...
            manager.save(metrics={"loss": loss})

    One manager saves into a directory at a time; of several processes only the primary writes.

    Args:
        checkpoint: what to save.
        directory: where; made by the first save.
        max_to_keep: how many of the newest steps stay; None keeps all.
        keep_checkpoint_every_n_hours: a step that is about to go is kept for good when it is that much later than the last
            one that was.
        checkpoint_name: files are called ``DIRECTORY/NAME-<number>``; it may contain ``/``, and not lead out of the directory.
        step_counter: the training step: a variable, a function, or the name of a child of the Checkpoint that is a number.
        checkpoint_interval: steps between two saves; `save` returns None until then.
        init_fn: called by `restore_or_initialize` where there is no checkpoint.
        last_checkpoint_step: step of the last save, for ``checkpoint_interval``.
        best: name of the metric by which the best steps are kept beside the newest.
        mode: whether a low (``"min"``) or a high (``"max"``) value is good.
        keep_best: how many of the best.
        keep_every_n_steps: steps that are multiples of it are kept for good.
        policy: a function from all listed steps (`SavedStep`, oldest first) to those, or their paths, that stay beside the
            others. What it raises `save` raises, after the step is saved; nothing is removed then.
        config: see `Checkpoint`; for one that was made without.
        is_primary: whether this process writes; None asks torchrun, JAX or mpirun, and where none of them runs it does.
        delta: see `Checkpoint.save`: steps share what has not changed, and each may go by itself.
        frozen: with ``delta``: what never changes.
        durability: see `openckpt.save`.
        clock: seconds since 1970.
        store: where to write; the local disk when not given.

    Raises:
        ValueError: a number that is not positive, an interval without a counter, a name that leads out of the directory.
        TypeError: ``checkpoint`` is none of openckpt's.
        UnsupportedError: the directory is a URL (``writing.prefix``).
        OSError: the system refused to say what is in the directory.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        directory: str | os.PathLike[str],
        max_to_keep: int | None,
        keep_checkpoint_every_n_hours: float | None = None,
        checkpoint_name: str = "ckpt",
        step_counter: StepCounter | None = None,
        checkpoint_interval: int | None = None,
        init_fn: Callable[[], object] | None = None,
        last_checkpoint_step: int | None = None,
        *,
        best: str | None = None,
        mode: Mode = "min",
        keep_best: int = 1,
        keep_every_n_steps: int | None = None,
        policy: Policy | None = None,
        config: object = None,
        is_primary: bool | None = None,
        delta: bool = False,
        frozen: Collection[str] = (),
        durability: Durability = "power-loss",
        clock: Callable[[], float] = time.time,
        store: WritableStore | None = None,
    ) -> None:
        given: object = checkpoint
        if not isinstance(given, Checkpoint):
            kind = f"{type(given).__module__}.{type(given).__name__}"
            raise TypeError(f"a CheckpointManager saves an openckpt.Checkpoint, not a {kind}")
        if checkpoint_interval is not None and step_counter is None:
            raise ValueError("checkpoint_interval counts steps: it needs a step_counter")
        checkpoint_name = _checked_name(checkpoint_name)
        self._rules = Retention(
            max_to_keep, keep_checkpoint_every_n_hours or None, keep_every_n_steps, best, mode, keep_best, policy
        )
        self._store: WritableStore = DISK if store is None else store
        self._checkpoint = checkpoint
        if config is not None:
            checkpoint._config = dataclasses.replace(checkpoint._config, made_from=config)
        self._directory = os.fsdecode(directory)
        refuse_url(self._store, self._directory)
        self._prefix = self._store.join(self._directory, checkpoint_name)
        self._counter = step_counter
        self._interval = checkpoint_interval
        self._init_fn = init_fn
        self._last_step = last_checkpoint_step
        self._durability: Durability = durability
        self._frozen = frozen if delta else None
        rank = find_rank()
        self._is_primary = (rank is None or rank.number == 0) if is_primary is None else is_primary
        self._run = Run(
            self._store,
            self._directory,
            checkpoint_name,
            self._rules,
            writes=self._is_primary,
            rank=rank,
            durability=durability,
            clock=clock,
        )
        self._run.steps = {path: self._with_note(step) for path, step in self._run.steps.items()}

    def __repr__(self) -> str:
        count, latest = len(self._run.steps), self._run.latest
        return f"<CheckpointManager of {self._directory!r}: {count} checkpoints, the latest {latest!r}>"

    # -- what there is ------------------------------------------------------------------------------------------------

    @property
    def checkpoint(self) -> Checkpoint:
        """What is saved."""
        return self._checkpoint

    @property
    def directory(self) -> str:
        """The directory, as it was given."""
        return self._directory

    @property
    def checkpoint_interval(self) -> int | None:
        """Steps between two saves."""
        return self._interval

    @property
    def is_primary(self) -> bool:
        """Whether this process writes."""
        return self._is_primary

    @property
    def latest_checkpoint(self) -> str | None:
        """The newest whole checkpoint: found when the manager was made, or saved by it since. None where there is none."""
        return self._run.latest

    @property
    def checkpoints(self) -> list[str]:
        """The listed checkpoints, oldest first: those that retention looks at. What is kept for good is not among them."""
        return list(self._run.steps)

    @property
    def steps(self) -> tuple[SavedStep, ...]:
        """The same, with what is known of each."""
        return tuple(self._run.steps.values())

    @property
    def best_checkpoint(self) -> str | None:
        """The best of the listed checkpoints by the metric ``best``, the newer of two; None where none has it."""
        found = best_steps(self.steps, self._rules)
        return found[0].path if found else None

    # -- saving -------------------------------------------------------------------------------------------------------

    @overload
    def save(
        self,
        checkpoint_number: SupportsInt | None = None,
        check_interval: bool = True,
        options: None = None,
        *,
        blocking: Literal[True] = True,
        **keywords: Unpack[_SaveKeywords],
    ) -> SavedPath | None: ...

    @overload
    def save(
        self,
        checkpoint_number: SupportsInt | None = None,
        check_interval: bool = True,
        options: None = None,
        *,
        blocking: Literal[False],
        **keywords: Unpack[_SaveKeywords],
    ) -> SaveHandle | None: ...

    def save(
        self,
        checkpoint_number: SupportsInt | None = None,
        check_interval: bool = True,
        options: None = None,
        *,
        metrics: Mapping[str, SupportsFloat] | None = None,
        blocking: bool = True,
        timeout: float | None = None,
    ) -> SavedPath | SaveHandle | None:
        """Save a step, list it in the manifest and let go of those that no rule keeps.

        Args:
            checkpoint_number: the number in the name; the Checkpoint's save counter when not given, which goes on behind the
                highest number that was there.
            check_interval: whether to wait for ``checkpoint_interval``; without it a step is still not saved twice.
            options: TensorFlow's place for its CheckpointOptions; openckpt has none.
            metrics: numbers by name, kept with the step.
            blocking: see `Checkpoint.save`; in the background the steps that go are removed there too.
            timeout: seconds to wait for a save that is under way.

        Returns:
            The prefix, or its handle; None where the interval has not passed. A process that is not the primary gets the same
            path and has written nothing: ``.nbytes`` is 0.

        Raises:
            ConflictError: another process saves here (``training.busy-run``) or has saved here since (``training.overtaken``),
                or there is a checkpoint of that number which this manager did not write (``training.exists``).
            CheckpointError, TimeoutError, OSError: as `Checkpoint.save`. Nothing has changed then, the counter neither; of what
                fails in the background the number stays counted.
        """
        if options is not None:
            raise ValueError("openckpt has no CheckpointOptions: durability and store are arguments of the manager")
        step = None if self._counter is None else self._step_now(self._counter)
        if self._interval is not None and not self._is_due(step, self._interval, check_interval):
            return None
        said = {} if metrics is None else {str(name): float(value) for name, value in metrics.items()}
        ours = self._checkpoint
        with ours._saves.next(timeout):
            before = (ours.save_counter, self._last_step)
            number = before[0] + 1 if checkpoint_number is None else int(checkpoint_number)
            if checkpoint_number is None:
                number = max(number, self._run.highest + 1)
            new = SavedStep(f"{self._prefix}-{number}", number if step is None else step, self._run.now(), said)
            ours._count_to(number if checkpoint_number is None else before[0] + 1)
            self._last_step = step
            if not self._is_primary:
                self._run.follow(new)
                saved = SavedPath(new.path, step=number, durability="process-crash", nbytes=0)
                return saved if blocking else finished(saved)
            note = Note(step, said)
            beside = {METRICS_KEY: encode_note(note)} if note != Note() else {}
            put = partial(self._put, new, number, before[1])
            try:
                return ours._save(new.path, put, blocking=blocking, frozen=self._frozen or (), beside=beside)
            except BaseException:
                if not self._run.has_saved(new):
                    ours._count_to(before[0])
                    self._last_step = before[1]
                raise

    def _put(self, new: SavedStep, number: int, last_step: int | None, values: Mapping[str, Any]) -> SavedPath:
        """Write a step and what follows from it, here or on another thread."""

        def write(update_manifest: ManifestUpdate | bool) -> SavedPath:
            target = Target(
                path=new.path,
                overwrite=new.path in self._run.written,
                update_manifest=update_manifest,
                durability=self._durability,
                store=self._store,
                frozen=self._frozen,
            )
            return self._checkpoint._saves.put(target, values)

        try:
            return self._run.save(new, number, write)
        except BaseException:
            if not self._run.has_saved(new):
                self._last_step = last_step
            raise

    def pin(self, checkpoint: str | os.PathLike[str] | SupportsIndex) -> None:
        """Keep a checkpoint for good, given by its path or its number: no manager ever removes it.

        Raises:
            PathNotFoundError: it is not there, or not whole (``training.no-such-step``).
            ConflictError, OSError: as `save`.
        """
        if isinstance(checkpoint, SupportsIndex):
            path = f"{self._prefix}-{operator.index(checkpoint)}"
        else:
            path = os.fsdecode(checkpoint)
        with self._checkpoint._saves.turn.taken():
            self._checkpoint._saves.saving.wait()
            why = why_not_whole(self._store, path)
            if why:
                raise PathNotFoundError("training.no-such-step", path, f"this checkpoint cannot be kept: {why}")
            self._run.pin(path)

    def sync(self, timeout: float | None = None) -> None:
        """Return when no save is under way; see `Checkpoint.sync`."""
        self._checkpoint.sync(timeout)

    # -- restoring ----------------------------------------------------------------------------------------------------

    def restore_or_initialize(self, *, timeout: float | None = None) -> str | None:
        """Restore the latest checkpoint and return its path; where there is none call ``init_fn`` and return None.

        One whose bytes turn out to be damaged is passed over with a `CheckpointWarning`, for the next older listed one, and then
        for those that were kept for good. It counts for nothing when the next save looks at which are the newest.

        Args:
            timeout: seconds to wait for a save that is under way.

        Raises:
            TimeoutError: it goes on; nothing was restored.
            CorruptionError: all of them are damaged; of the newest.
            CheckpointError, OSError: as `Checkpoint.restore`.
        """
        self._checkpoint._saves.saving.wait(timeout)
        latest = self._run.latest
        if latest is None:
            if self._init_fn is not None:
                self._init_fn()
            return None
        damage: CorruptionError | None = None
        for path in chain([latest], self._run.older()):
            try:
                self._checkpoint.restore(path, timeout=timeout)
            except CorruptionError as error:
                damage = damage or error
                self._run.damaged.add(path)
                warn(f"passed over, the next older checkpoint is tried: {error}")
                continue
            self._run.latest = path
            if self._interval is not None and self._counter is not None:
                self._last_step = self._step_now(self._counter)
            return path
        assert damage is not None
        raise damage

    # -- how ----------------------------------------------------------------------------------------------------------

    def _is_due(self, step: int | None, interval: int, check_interval: bool) -> bool:
        last = self._last_step
        return last is None or step is None or (step != last and not (check_interval and step < last + interval))

    def _step_now(self, counter: StepCounter) -> int:
        if isinstance(counter, str):
            counter = getattr(self._checkpoint, counter)
        return int(counter() if callable(counter) else counter)

    def _with_note(self, step: SavedStep) -> SavedStep:
        """Return a step with what was said of it when it was saved, where a rule asks."""
        rules = self._rules
        if rules.best is None and rules.policy is None and (rules.every_n_steps is None or self._counter is None):
            return step
        note = read_note(self._store, step.path)
        nbytes = size_of(self._store, step.path) if rules.policy else 0
        number = step_of(step.path) if note.step is None else note.step
        return dataclasses.replace(step, step=number, metrics=note.metrics, nbytes=nbytes)


def _checked_name(name: str) -> str:
    """Return the name of a run's checkpoints in the one way in which it can be spelled."""
    found = posixpath.normpath(name)
    if found.startswith(("/", "../")) or name.endswith("/") or found in (".", ".."):
        raise ValueError(f"checkpoint_name is a name in the manager's directory, maybe below it, not {name!r}")
    return found
