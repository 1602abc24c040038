"""`SaveCheckpoint`: a Keras callback that saves all state of a training and resumes it, on every backend; `random_state` for loops
of your own.

In the place of ``ModelCheckpoint`` and ``BackupAndRestore``: model, optimizer, metrics, seeds, the place in the training and
random numbers are one checkpoint, durable when the callback returns, and readable by stock TensorFlow.

Needs Keras 3; nothing else in openckpt imports it.
"""

from __future__ import annotations

import os
import random
import sys
import warnings
from collections.abc import Mapping
from typing import Any, Literal

import keras
import numpy as np
from keras.callbacks import Callback

from openckpt.errors import CheckpointWarning, shown
from openckpt.storage.writable import Durability
from openckpt.training import Checkpoint, CheckpointManager

__all__ = ["SaveCheckpoint", "random_state"]


def random_state() -> dict[str, object]:
    """Return the generators of random numbers that a Keras program draws from and no model holds, to be saved with it.

        ckpt = openckpt.Checkpoint(model=model, random=openckpt.keras.random_state())

    ``"python"`` and ``"numpy"``, whose numbers shuffle the data of ``fit`` on JAX; ``"keras"``, which `keras.random` uses where it
    is given no seed; on the PyTorch backend ``"torch"``, its generator on the CPU, which shuffles the data there. TensorFlow
    shows nobody the state of its own ``tf.random`` functions.
    """
    found: dict[str, object] = {"python": random, "numpy": np.random}
    drawn = random.getstate()  # Keras seeds the generator by it, should this be its first use
    try:
        from keras.src.random.seed_generator import global_seed_generator

        found["keras"] = global_seed_generator()
    except ImportError:  # there is no public way to it, and other versions may have another
        pass
    finally:
        random.setstate(drawn)
    if keras.backend.backend() == "torch":
        found["torch"] = sys.modules["torch"].default_generator
    return found


class SaveCheckpoint(Callback):
    """Saves during ``fit``, and goes on where the last run stopped or was killed.

        model.fit(x, y, epochs=100, callbacks=[openckpt.keras.SaveCheckpoint("run", best="val_loss")])

    The same line resumes: when training begins, the newest whole checkpoint of the directory is restored, once, and ``fit``
    begins with the epoch after it; so it is again after a ``fit`` that was interrupted. A checkpoint from the middle of an epoch
    begins that epoch anew with the weights it has; `batch` says how many of its batches they have seen, for data that can skip them.

    Args:
        directory: of the run; checkpoints are ``DIRECTORY/ckpt-1`` and so on.
        every: ``"epoch"``, or a number of batches.
        max_to_keep: how many of the newest stay; None keeps all.
        best: name of the metric by which the best stay too, ``"val_loss"``. Where batches do not have it, as they have none of
            validation, the end of every epoch is saved too.
        mode: whether a low (``"min"``) or a high (``"max"``) value is good.
        keep_best: how many of the best.
        resume: whether to restore when training begins.
        random_state: whether the random generators that no model holds are part of the checkpoint, and of what is restored: see
            `openckpt.keras.random_state`.
        also: other objects to save, by name.
        blocking: return to the training when the checkpoint is on the disk; else as soon as the values are copied. What fails in the
            background is raised at the next save, or when training ends.
        durability: see `openckpt.save`.

    Raises:
        ValueError: ``every`` is neither.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        *,
        every: int | Literal["epoch"] = "epoch",
        max_to_keep: int | None = 3,
        best: str | None = None,
        mode: Literal["min", "max"] = "min",
        keep_best: int = 1,
        resume: bool = True,
        random_state: bool = True,
        also: Mapping[str, object] | None = None,
        blocking: bool = True,
        durability: Durability = "power-loss",
    ) -> None:
        super().__init__()
        if every != "epoch" and (not isinstance(every, int) or isinstance(every, bool) or every < 1):
            raise ValueError(f"every must be 'epoch' or a positive number of batches, not {every!r}")
        self._every = every
        self._directory = directory
        self._keep = {"max_to_keep": max_to_keep, "best": best, "mode": mode, "keep_best": keep_best}
        self._best, self._batches_have_best, self._has_said = best, False, False
        self._durability: Durability = durability
        self._blocking = blocking
        self._resume, self._random, self._also = resume, random_state, dict(also or {})
        self._manager: CheckpointManager | None = None
        self._is_training = False  # also after a fit that was interrupted
        self._seen = 0  # batches since the last save
        self._last = 0  # the batch of this epoch that was the last to end

    # -- what there is ------------------------------------------------------------------------------------------------

    @property
    def manager(self) -> CheckpointManager:
        """The manager of the run: its checkpoints, the latest, the best. There is one when training or `restore` has begun."""
        if self._manager is None:
            raise ValueError(
                "there is no manager before fit or restore has begun: the callback does not know the model yet"
            )
        return self._manager

    @property
    def epoch(self) -> int:
        """How many epochs are done: the ``initial_epoch`` of what follows."""
        return int(self.manager.checkpoint.epoch)

    @property
    def batch(self) -> int:
        """How many batches of the epoch after them are done."""
        return int(self.manager.checkpoint.batch)

    # -- resuming -----------------------------------------------------------------------------------------------------

    def restore(self, model: Any) -> int:
        """Restore the newest whole checkpoint, where there is one, and return the epoch to begin with.

        ``fit`` does this by itself; call it where you want to know before: ``fit(..., initial_epoch=save.restore(model))``.

        Raises:
            ValueError: this callback saves another model.
            MismatchError: the model is not the one that was saved.
            CheckpointError, OSError: as `openckpt.CheckpointManager.restore_or_initialize`.
        """
        if self._manager is None:
            self._manager = self._made(model)
            if self._resume:
                self._manager.restore_or_initialize()
        elif self._manager.checkpoint.model is not model:
            raise ValueError("this callback saves another model already: give every model a SaveCheckpoint of its own")
        return self.epoch

    def _made(self, model: Any) -> CheckpointManager:
        children: dict[str, Any] = {"model": model, "epoch": 0, "batch": 0, **self._also}
        if self._random:
            children["random"] = random_state()
        keep: Any = self._keep
        return CheckpointManager(Checkpoint(**children), self._directory, durability=self._durability, **keep)

    # -- what Keras calls ---------------------------------------------------------------------------------------------

    def on_train_begin(self, logs: Mapping[str, Any] | None = None) -> None:
        """Restore, once, and again where the last ``fit`` did not come to its end."""
        is_resumed = self._manager is None
        epoch = self.restore(self.model)
        if self._is_training and self._resume:
            is_resumed = True
            self.manager.restore_or_initialize()
            epoch, self._seen = self.epoch, 0
        if is_resumed and epoch:
            self.model._initial_epoch = epoch  # as Keras's BackupAndRestore does; fit reads it after this
        self._is_training = True

    def on_train_end(self, logs: Mapping[str, Any] | None = None) -> None:
        """Wait for what is being saved, and let the next ``fit`` begin where its caller says."""
        self._is_training = False
        self.model._initial_epoch = None
        self.manager.sync()

    def on_train_batch_end(self, batch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Save after so many batches; several of them may be one step of the compiled function."""
        done = batch + 1
        self._batches_have_best = self._best in (logs or {})
        self._seen += done - self._last
        self._last = done
        if self._every != "epoch" and self._seen >= self._every:
            self._save(self._epoch_now, done, logs)

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Remember the epoch."""
        self._epoch_now = epoch
        self._last = 0

    def on_epoch_end(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Save after an epoch, with its metrics."""
        logs = logs or {}
        is_only_here = self._best in logs and not self._batches_have_best
        if self._every == "epoch" or is_only_here:
            self._save(epoch + 1, 0, logs)
        if self._best is not None and self._best not in logs and not self._has_said:
            self._has_said = True
            warnings.warn(
                f"no epoch of this training has the metric {self._best!r} to find the best by: there is {shown(list(logs), 8)}",
                CheckpointWarning,
                stacklevel=2,
            )

    def _save(self, epoch: int, batch: int, logs: Mapping[str, Any] | None) -> None:
        self._seen = 0
        checkpoint = self.manager.checkpoint
        checkpoint.epoch, checkpoint.batch = epoch, batch
        metrics = {name: float(value) for name, value in (logs or {}).items() if np.ndim(value) == 0}
        if self._blocking:
            self.manager.save(metrics=metrics)
        else:
            self.manager.save(metrics=metrics, blocking=False)
