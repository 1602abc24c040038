"""SIGKILL in the middle of a save: what a crash, the out-of-memory killer or a scheduler leaves on a real disk."""

from __future__ import annotations

import os
import signal
import traceback
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeVar

from openckpt.storage.disk import DISK
from openckpt.storage.writable import WritableStore
from openckpt.testing.calls import Call, CallFS

T = TypeVar("T")
When = Literal["before", "after"]


@dataclass(frozen=True, slots=True)
class Ending:
    """How a child process ended.

    Attributes:
        how: "killed" at the call that was asked for; "finished", it made fewer calls; "raised", the save raised.
        said: the call at which it was killed; the number of calls it made; the traceback.
        replay: one line: which call, and whether before or after it.
    """

    how: Literal["killed", "finished", "raised"]
    said: str
    replay: str


class _KillingFS(CallFS):
    def __init__(self, store: WritableStore, at: int, when: When | None, pipe: int) -> None:
        super().__init__(store)
        self._at, self._when, self._pipe = at, when, pipe

    def around(self, call: Call, do: Callable[[], T]) -> T:
        if call.number != self._at:
            return do()
        if self._when == "before":
            self._die(call)
        result = do()
        if self._when == "after":
            self._die(call)
        return result

    def _die(self, call: Call) -> None:
        os.write(self._pipe, str(call).encode(errors="backslashreplace"))
        os.kill(os.getpid(), signal.SIGKILL)


def run_killed(
    save: Callable[[WritableStore], object], at: int, when: When = "before", *, store: WritableStore = DISK
) -> Ending:
    """Run ``save`` in a child process that kills itself with SIGKILL before or after its ``at``-th call.

    Nothing of the child's cleans up: what lies on the disk then is what a crash leaves there. POSIX only (it forks).

    Args:
        save: gets the store that it must save through.
        at: number of the call, from 1.
        when: whether the call still happens.
        store: where the calls go.

    Raises:
        OSError: no process could be made.
    """
    how, said = _run_child(save, at, when, store)
    return Ending(how, said, f"run_killed(save, at={at}, when={when!r}): {said.splitlines()[-1] if said else how}")


def count_calls(save: Callable[[WritableStore], object], *, store: WritableStore = DISK) -> int:
    """Return how many calls ``save`` makes. It runs to its end, in a child process.

    Raises:
        RuntimeError: it raised; the message is its traceback.
        OSError: no process could be made.
    """
    how, said = _run_child(save, 0, None, store)
    if how != "finished":
        raise RuntimeError(f"the save could not be counted, it {how}:\n{said}")
    return int(said)


def _run_child(
    save: Callable[[WritableStore], object], at: int, when: When | None, store: WritableStore
) -> tuple[Literal["killed", "finished", "raised"], str]:
    reading, writing = os.pipe()
    with warnings.catch_warnings():
        # Python 3.12 warns of a fork beside threads. The child needs no lock of theirs: it saves, and is gone.
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if pid == 0:
        _be_child(save, _KillingFS(store, at, when, writing), writing)
    os.close(writing)
    said = b""
    try:
        while part := os.read(reading, 65536):
            said += part
    finally:
        os.close(reading)
        status = os.waitpid(pid, 0)[1]
    code = os.waitstatus_to_exitcode(status)
    text = said.decode(errors="replace")
    if code == -signal.SIGKILL:
        return "killed", text
    if code == 0:
        return "finished", text
    return "raised", text or f"the process ended with {code}"


def _be_child(save: Callable[[WritableStore], object], fs: _KillingFS, pipe: int) -> None:
    code = 1
    try:
        try:
            save(fs)
            said = str(len(fs.calls))
            code = 0
        except BaseException:
            said = traceback.format_exc()
        data = said.encode(errors="backslashreplace")
        while data:
            data = data[os.write(pipe, data) :]
    finally:
        os._exit(code)  # nothing of the parent's is to run twice: no atexit, no buffers
