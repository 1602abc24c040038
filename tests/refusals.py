"""How tests ask with which code something is refused."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from openckpt.errors import CheckpointError, FormatError, UnsafeError


def code_of(act: Callable[..., object], *args: object) -> str:
    """Return the code of the error that ``act(*args)`` raises: one of the kinds that hostile bytes may lead to."""
    with pytest.raises(CheckpointError) as caught:
        act(*args)
    assert isinstance(caught.value, FormatError | UnsafeError)
    return caught.value.code
