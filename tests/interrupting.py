"""A disk that does something in the middle of a save, as a signal handler or another thread of the program would."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from openckpt.storage.disk import DISK
from openckpt.testing import Call, CallFS

T = TypeVar("T")


class AtCall(CallFS):
    """Does something before the n-th call."""

    def __init__(self, number: int, what: Callable[[], object]) -> None:
        super().__init__(DISK)
        self._number, self._what = number, what

    def around(self, call: Call, do: Callable[[], T]) -> T:
        """Do it, then the call."""
        if call.number == self._number:
            self._what()
        return do()
