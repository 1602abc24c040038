"""How tests ask with which code something is refused."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from openckpt.errors import CheckpointError, FormatError, UnsafeError


def error_of(act: Callable[..., object], *args: object) -> CheckpointError:
    """Return the error that ``act(*args)`` raises."""
    with pytest.raises(CheckpointError) as caught:
        act(*args)
    return caught.value


def code_of(act: Callable[..., object], *args: object) -> str:
    """Return the code of the error that ``act(*args)`` raises: one of the kinds that hostile bytes may lead to."""
    error = error_of(act, *args)
    assert isinstance(error, FormatError | UnsafeError)
    return error.code
