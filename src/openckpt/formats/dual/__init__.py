"""The dual format: a data shard of a V2 checkpoint that is at the same time a safetensors file (docs/format/dual.md).

`plan_dual` lays a shard out, `DualPlan.header` makes its header; `parse_dual` reads what a header says of the checkpoint, and
`index_of_dual` makes the index of it again. Pure: bytes in, bytes out. Knows the bundle's entries and nothing of files.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from openckpt.lazy import lazy_attributes

if TYPE_CHECKING:
    from openckpt.formats.dual.layout import DualPlan, DualTensor, Place, plan_dual
    from openckpt.formats.dual.parsing import DualEntry, DualShard, parse_dual
    from openckpt.formats.dual.rebuilding import index_of_dual

_HOMES = {
    "DualEntry": "parsing",
    "DualPlan": "layout",
    "DualShard": "parsing",
    "DualTensor": "layout",
    "Place": "layout",
    "index_of_dual": "rebuilding",
    "parse_dual": "parsing",
    "plan_dual": "layout",
}

__all__ = [
    "DualEntry",
    "DualPlan",
    "DualShard",
    "DualTensor",
    "Place",
    "index_of_dual",
    "parse_dual",
    "plan_dual",
]

__getattr__ = lazy_attributes(__name__, _HOMES)
