"""One training that is killed again and again: each life of it goes on where the last one died.

    life    restore the latest   train   save in the background, in a delta   let go of an old step   ...   SIGKILL
    judge   what was restored is a step that the dead could have saved, none of it is older than what was safe, and its weights
            are, bit by bit, those of the same training that never died

Where it dies is counted in calls of one phase of a save, so that each phase has its share of the deaths.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np

import openckpt
from openckpt.storage.writable import WritableStore
from openckpt.testing import Call, CallFS, run_killed
from openckpt.training import Checkpoint, CheckpointManager

T = TypeVar("T")
PHASES = ("data", "link", "index", "manifest", "sweep")
STEPS = 5
"""of a life that nobody ends"""
KEPT = 2


class Program(Protocol):
    """A training whose state after so many steps is always the same."""

    checkpoint: Checkpoint
    """with a child ``step``"""
    frozen: Sequence[str]
    """what it declares never to change"""

    def train(self, steps: int, after_each: Callable[[], None]) -> None:
        """Go on for some steps; each counts `checkpoint.step` up."""

    def digest(self) -> str:
        """Return what tells all of its values from those of every other step."""


class Phases:
    """Tells from the calls of a training, in their order, which part of a save each of them is; "" between saves."""

    def __init__(self) -> None:
        self._now = ""
        self._is_named = False  # a data file of the step has its name
        self._then = ""  # the phase that begins with the next call

    def of(self, call: Call) -> str:
        name = call.path.rpartition("/")[2]
        is_step = name.startswith("ckpt-")
        if self._then:
            self._now, self._then = self._then.strip(), ""
        if call.name == "create" and is_step and name.endswith(".0.openckpt-tmp"):
            self._now, self._is_named = "data", False
        elif call.name == "link" and ".data-" in name:
            self._now, self._is_named = "link", True
        elif call.name == "rename_new" and ".data-" in call.detail:
            self._is_named = True
        elif self._now in ("data", "link") and self._is_named and call.name not in ("sync_path", "sync_directory"):
            self._now = "index"
        elif self._now == "sweep" and call.name == "try_lock" and name == "checkpoint.openckpt-lock":
            self._now = "manifest"  # the one that forgets what has been swept
        if call.name == "rename" and call.detail.endswith(".index"):
            self._then = "manifest"
        elif call.name == "close" and is_step and name.endswith(".openckpt-lock") and self._now == "manifest":
            self._then = "sweep"
        elif call.name == "close" and name == "checkpoint.run.openckpt-lock":
            self._then = " "
        return self._now


@dataclass(frozen=True, slots=True)
class Death:
    """Before or after the ``number``-th call of a phase."""

    phase: str
    number: int
    is_after: bool


class Dying(CallFS):
    """Kills the process where it was told to; counts the calls of each phase."""

    def __init__(self, store: WritableStore, death: Death | None, say: Callable[[str], None]) -> None:
        super().__init__(store)
        self._death, self._say, self._phases = death, say, Phases()
        self.counted: Counter[str] = Counter()

    def around(self, call: Call, do: Callable[[], T]) -> T:
        phase = self._phases.of(call)
        self.counted[phase] += 1
        death = self._death
        if death is None or phase != death.phase or self.counted[phase] != death.number:
            return do()
        if not death.is_after:
            self._die(f"before {call}")
        try:
            return do()
        finally:
            self._die(f"after {call}")

    def _die(self, where: str) -> None:
        self._say(where)
        os.kill(os.getpid(), signal.SIGKILL)


class Journal:
    """What the lives said, a line each, in a file that a death in the middle of a line leaves readable."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def say(self, *words: object) -> None:
        with self._path.open("a") as file:
            file.write(" ".join(map(str, words)) + "\n")

    def last(self, word: str, default: str = "0") -> str:
        """Return what was said last behind a word."""
        lines = self._path.read_text().split("\n")[:-1] if self._path.exists() else []
        return next((line.removeprefix(f"{word} ") for line in reversed(lines) if line.startswith(f"{word} ")), default)


def digest_of(arrays: Iterable[Any]) -> str:
    """Return what tells arrays from others of the same number, types and shapes."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


@dataclass(frozen=True, slots=True)
class Training:
    """One run of a program in a directory."""

    make: Callable[[], Program]
    directory: Path

    @property
    def run(self) -> Path:
        return self.directory / "run"

    @property
    def journal(self) -> Journal:
        return Journal(self.directory / "journal")

    def never_killed(self, steps: int) -> list[str]:
        """Return the digests of all states of the training, the one before the first step among them."""
        path = self.directory / "digests"

        def train(_: WritableStore) -> None:
            program = self.make()
            digests = [program.digest()]
            program.train(steps, lambda: digests.append(program.digest()))
            path.write_text(json.dumps(digests))

        ending = run_killed(train, 0)  # in a child: what a framework starts, a fork would not have
        assert ending.how == "finished", ending.said
        digests: list[str] = json.loads(path.read_text())
        assert len(set(digests)) == steps + 1
        return digests

    def life(self, digests: Sequence[str], death: Death | None) -> Callable[[WritableStore], None]:
        """Return a life: judges what it finds, trains, and says before each save that it begins and afterwards that it is safe."""

        def live(store: WritableStore) -> None:
            journal, program = self.journal, self.make()
            dying = Dying(store, death, lambda where: journal.say("died", where))
            manager = CheckpointManager(
                program.checkpoint, self.run, KEPT, delta=True, frozen=program.frozen, store=dying
            )
            manager.restore_or_initialize()
            step = program.checkpoint.step
            assert int(journal.last("safe")) <= step <= int(journal.last("begun")), "lost, or never trained"
            assert program.digest() == digests[step], f"these are not the values of step {step}"
            journal.say("restored", step)

            def save() -> None:
                step = program.checkpoint.step
                journal.say("begun", step)
                handle = manager.save(blocking=False)  # waits for the step before
                assert handle is not None
                journal.say("safe", max(step - 1, int(journal.last("safe"))))

            program.train(STEPS, save)
            manager.sync()
            journal.say("safe", program.checkpoint.step)
            journal.say("counted", json.dumps(dying.counted))

        return live

    def check_files(self) -> None:
        """Raise unless exactly the listed steps lie there, each of them whole."""
        manager = CheckpointManager(Checkpoint(step=0), self.run, KEPT)
        listed = {Path(path).name for path in manager.checkpoints}
        names = {path.name for path in self.run.iterdir()}
        assert len(listed) == KEPT
        assert {name.partition(".")[0] for name in names} == {"checkpoint", *listed}, names
        assert not [name for name in names if "openckpt" in name], names
        for path in manager.checkpoints:
            assert openckpt.diagnose(path).valid


def die_often(make: Callable[[], Program], directory: Path, deaths: int) -> str:
    """Kill one training so many times, and let it end; judge it. Returns a line of figures."""
    training = Training(make, directory)
    digests = training.never_killed(STEPS * (2 * deaths + 2))
    leftovers = 0

    def live(death: Death | None) -> str:
        ending = run_killed(training.life(digests, death), 0)
        assert ending.how == ("finished" if ending.how != "killed" or death is None else "killed"), (
            f"{death}: {ending.said}"
        )
        return ending.how

    live(None)
    calls: dict[str, int] = json.loads(training.journal.last("counted"))
    landed: Counter[str] = Counter()
    each = -(-deaths // len(PHASES))
    for at in range(each):
        for phase in PHASES:
            number = 1 + at * calls[phase] // each
            while live(Death(phase, number, bool(at % 2))) != "killed":  # a life of fewer calls: it had less to sweep
                number //= 2
                assert number, f"no call of the phase {phase}"
            landed[phase] += 1
            names = [path.name for path in training.run.iterdir()]
            leftovers = max(leftovers, sum(".openckpt-" in name for name in names))
            if int(training.journal.last("safe")) > int(training.journal.last("restored")):  # this life ended a save
                steps = {name.partition(".")[0] for name in names} - {"checkpoint"}
                assert len(steps) <= KEPT + 2, f"one may come and one go: {steps}"
    live(None)
    training.check_files()
    assert min(landed.values()) >= each
    assert leftovers <= 8  # locks, and files without a name yet, of one life
    steps = training.journal.last("safe")
    return f"killed {landed.total()} times in one run of {steps} steps: {dict(landed)}; at most {leftovers} files left over"
