"""Several threads that do something at once."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import TypeVar

T = TypeVar("T")


def together(act: Callable[[T], object], things: Iterable[T]) -> None:
    """Do something with every thing, each in a thread of its own, and wait for all; the first error is raised."""
    errors: list[BaseException] = []

    def run(thing: T) -> None:
        try:
            act(thing)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(thing,)) for thing in things]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
