"""Conversion: any checkpoint that openckpt reads into any format that it writes, tensor by tensor under a byte budget.

`convert` plans (`planning`), moves tensors from a reader to an output (`moving`, `outputs`) and proves the result (`proving`).
What a target has no type or name for is carried in its metadata; what cannot be carried is refused before anything is written.

Must not import finding, doctor or the command line.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from openckpt.lazy import lazy_attributes

if TYPE_CHECKING:
    from openckpt.conversion.converting import convert
    from openckpt.conversion.result import CastReport, Conversion

_HOMES = {
    "CastReport": "result",
    "Conversion": "result",
    "convert": "converting",
}

__all__ = [
    "CastReport",
    "Conversion",
    "convert",
]

__getattr__ = lazy_attributes(__name__, _HOMES)
