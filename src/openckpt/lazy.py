"""Packages whose names are imported when they are first used (PEP 562).

Start-up is a promise: listing a checkpoint must cost milliseconds, so a package's front file may offer much and import nothing.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Any


def lazy_attributes(package: str, homes: Mapping[str, str]) -> Callable[[str], Any]:
    """Return the ``__getattr__`` of a package that offers each name of ``homes`` from the module it maps to.

    Args:
        package: ``__name__`` of the package.
        homes: public name -> module, relative to the package.
    """

    def __getattr__(name: str) -> Any:
        home = homes.get(name)
        if home is None:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        from importlib import import_module

        value = getattr(import_module(f"{package}.{home}"), name)
        setattr(sys.modules[package], name, value)  # the next use finds it without this function
        return value

    return __getattr__
