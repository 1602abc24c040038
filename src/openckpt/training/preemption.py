"""A last save when the machine is taken away: `save_on_preemption` answers the signal that announces it.

    signal     a save under way is finished, else one is made
               not in the middle of another save or restore, and with ``at_safe_points`` only where the program says so
    deadline   after ``within`` seconds the program goes on ending, saved or not: what was saved before is whole in any case
    then       what the signal would have done without us: an earlier handler, or the end

Python runs a signal's handler on the main thread, between two steps of it: not while that is in one long call of a framework.
"""

from __future__ import annotations

import os
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterable
from types import FrameType, TracebackType
from typing import Any

from openckpt.errors import CheckpointWarning
from openckpt.training.background import SaveHandle
from openckpt.training.checkpoint import Checkpoint
from openckpt.training.manager import CheckpointManager


def save_on_preemption(
    checkpoint: Checkpoint | CheckpointManager,
    prefix: str | os.PathLike[str] | None = None,
    *,
    signals: Iterable[int] = (signal.SIGTERM,),
    within: float = 30.0,
    at_safe_points: bool = False,
) -> Preemption:
    """Save when the program is told to end, and let it end; use it in a ``with`` block, on the main thread.

        with openckpt.save_on_preemption(ckpt, "run/ckpt", at_safe_points=True) as preemption:
            for batch in data:
                train(batch)
                preemption.safe_point()

    A save that is under way when the signal comes is finished, and no other one made. When that is done, or the time is over,
    happens what would have happened without this: the handler that was there before is called, or the program ends by the
    signal.

    Args:
        checkpoint: what to save; a manager saves its next step, whatever its interval.
        prefix: where, as for `Checkpoint.save`; a manager knows it.
        signals: which ones; many schedulers send SIGTERM, Slurm what ``--signal`` says.
        within: seconds from the signal to the end; less than the scheduler gives.
        at_safe_points: save only where the program calls `Preemption.safe_point`, and where the block ends. Otherwise the save is
            made wherever the signal finds the program, which may be in the middle of a step: some weights are then a step
            ahead of the others.

    Raises:
        ValueError: a Checkpoint without a prefix, or a manager with one; or (when the block is entered) this is not the main
            thread.
    """
    if isinstance(checkpoint, Checkpoint) == (prefix is None):
        raise ValueError("a Checkpoint is saved under a prefix; a CheckpointManager has its own")
    return Preemption(checkpoint, prefix, tuple(signals), within, at_safe_points=at_safe_points)


class Preemption:
    """See `save_on_preemption`; a context manager."""

    def __init__(
        self,
        checkpoint: Checkpoint | CheckpointManager,
        prefix: str | os.PathLike[str] | None,
        signals: tuple[int, ...],
        within: float,
        *,
        at_safe_points: bool,
    ) -> None:
        self._target, self._prefix = checkpoint, prefix
        self._ours = checkpoint if isinstance(checkpoint, Checkpoint) else checkpoint.checkpoint
        self._signals, self._within, self._at_safe_points = signals, within, at_safe_points
        self._previous: dict[int, Any] = {}
        self._process = os.getpid()
        self._number: int | None = None
        self._frame: FrameType | None = None
        self._deadline = 0.0
        self._saves = 0  # there had been when the signal came
        self._is_ending = False
        self._is_over = False
        self._timer: threading.Timer | None = None

    @property
    def is_announced(self) -> bool:
        """Whether the signal has come."""
        return self._number is not None

    def __enter__(self) -> Preemption:
        for number in self._signals:
            self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self._end()
        elif self._number is not None and not self._is_ending:  # nothing is saved: an error leaves values in between
            self._go_on(self._number, self._frame)
        self._restore_handlers()

    def safe_point(self) -> None:
        """Say that the values belong together now: if the signal has come, they are saved, and the program ends."""
        self._end()

    # -- the signal ---------------------------------------------------------------------------------------------------

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process:  # a fork, as workers that load data are: it has nothing to save
            self._go_on(number, frame)
        elif self._number is not None:
            if self._left() <= 0:
                self._go_on(self._number, frame)
            # Else the scheduler has only said it again.
        else:
            self._begin(number, frame)

    def _begin(self, number: int, frame: FrameType | None) -> None:
        self._number, self._frame = number, frame
        self._deadline = time.monotonic() + self._within
        self._saves = self._ours._saves.count
        self._timer = threading.Timer(self._within, _tell_main_thread, (number,))
        self._timer.daemon = True
        self._timer.start()
        if self._at_safe_points:
            return
        if self._ours._saves.turn.is_mine():
            self._ours._saves.turn.then(self._end)
        else:
            self._end()

    def _left(self) -> float:
        return self._deadline - time.monotonic()

    def _end(self) -> None:
        if self._number is None or self._is_ending or self._is_over:
            return
        self._is_ending = True
        try:
            self._save()
        except Exception as error:
            self._warn(error)
        finally:
            self._go_on(self._number, self._frame)

    def _save(self) -> None:
        """Finish the save that is under way; where there is none, or it fails, make one."""
        saving = self._ours._saves.saving
        saving.wait(max(0.0, self._left()))
        try:
            saving.settle(0)
        except Exception as error:
            self._warn(error)
        if self._ours._saves.count > self._saves:
            return
        handle: SaveHandle | None
        if isinstance(self._target, Checkpoint):
            handle = self._target.save(self._prefix or "", blocking=False, timeout=max(0.0, self._left()))
        else:
            handle = self._target.save(check_interval=False, blocking=False, timeout=max(0.0, self._left()))
        if handle is not None:  # else this step is saved already
            handle.result(max(0.0, self._left()))

    def _warn(self, error: Exception) -> None:
        try:
            warnings.warn(f"not saved before the end: {error}", CheckpointWarning, stacklevel=4)
        except CheckpointWarning:
            pass  # a program that makes errors of warnings ends all the same

    def _go_on(self, number: int, frame: FrameType | None) -> None:
        """Do what the signal would have done without us, once."""
        if self._is_over:
            return
        self._is_over = True
        previous = self._previous.get(number)
        self._restore_handlers()
        if callable(previous):
            previous(number, frame)
        elif previous != signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)

    def _restore_handlers(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        for number, previous in self._previous.items():
            if signal.getsignal(number) == self._handle:
                signal.signal(number, signal.SIG_DFL if previous is None else previous)


def _tell_main_thread(number: int) -> None:
    """Have the main thread run the signal's handler, out of a call that waits too."""
    send: Callable[[int, int], None] | None = getattr(signal, "pthread_kill", None)
    main = threading.main_thread().ident
    if send is not None and main is not None:
        send(main, number)
    else:
        signal.raise_signal(number)
