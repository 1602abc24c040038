"""The front of `openckpt.testing`: everything it offers is there, described, and costs nothing before it is used."""

from __future__ import annotations

import inspect
import subprocess
import sys

import openckpt.testing
from openckpt.storage.disk import DISK
from openckpt.storage.writable import WritableStore
from openckpt.testing import CallFS, FaultyFS, OrderFS, PowerLossFS


def test_every_name_is_there_and_described() -> None:
    """The export list is sorted, complete, and each class and public method has a text."""
    assert openckpt.testing.__all__ == sorted(openckpt.testing.__all__, key=lambda name: (name.islower(), name))
    for name in openckpt.testing.__all__:
        value = getattr(openckpt.testing, name)
        assert inspect.getdoc(value), name
        for member, method in vars(value).items() if isinstance(value, type) else ():
            assert member.startswith("_") or not inspect.isfunction(method) or inspect.getdoc(method), (
                f"{name}.{member}"
            )
    assert set(openckpt.testing.__all__) <= set(dir(openckpt.testing))


def test_importing_the_package_imports_no_numpy() -> None:
    """Only what is used is loaded."""
    program = (
        "import openckpt.testing, sys; print(sorted(m for m in sys.modules if m in ('numpy', 'openckpt.formats')))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"


def test_every_store_has_every_call_of_the_protocol() -> None:
    """A call that the protocol gains must be counted, recorded and watched too."""
    calls = [name for name in dir(WritableStore) if not name.startswith("_")]
    stores: list[WritableStore] = [
        DISK, PowerLossFS(), CallFS(DISK), FaultyFS(DISK, fail_at=1), OrderFS(DISK, durability=None),
    ]  # fmt: skip
    assert [
        (type(store).__name__, name) for store in stores for name in calls if not callable(getattr(store, name, None))
    ] == []
