"""Hearing when a method of one object has been called: it is wrapped on the instance, and unwrapped when nobody listens."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

_LISTENERS = "_openckpt_listeners"


def call_after(owner: Any, name: str, call: Callable[[], None]) -> Callable[[], None]:
    """Call ``call`` after every call of ``owner.name(...)`` that returns; return what ends that.

    The oldest listener is called first. The wrapper goes when its last listener does, and leaves the object as it was.
    """
    listeners: list[Callable[[], None]] | None = getattr(vars(owner).get(name), _LISTENERS, None)
    if listeners is None:
        listeners = _wrap(owner, name)
    listeners.append(call)

    def stop() -> None:
        if call in listeners:
            listeners.remove(call)
        wrapper = vars(owner).get(name)
        if not listeners and getattr(wrapper, _LISTENERS, None) is listeners:
            _unwrap(owner, name, wrapper)

    return stop


def _wrap(owner: Any, name: str) -> list[Callable[[], None]]:
    inner = getattr(owner, name)
    listeners: list[Callable[[], None]] = []

    @functools.wraps(inner)  # with the marks that Keras puts on a method
    def wrapper(*arguments: object, **options: object) -> object:
        result = inner(*arguments, **options)
        for call in tuple(listeners):
            call()
        return result

    setattr(wrapper, _LISTENERS, listeners)
    wrapper._openckpt_before = vars(owner).get(name)  # type: ignore[attr-defined]
    vars(owner)[name] = wrapper  # past the frameworks' own __setattr__, which track what is assigned
    return listeners


def _unwrap(owner: Any, name: str, wrapper: Any) -> None:
    if wrapper._openckpt_before is None:
        del vars(owner)[name]
    else:
        vars(owner)[name] = wrapper._openckpt_before
