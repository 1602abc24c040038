"""TensorBundle, the V2 checkpoint (formats 2): `open_bundle` reads one, `encode_bundle` makes the bytes of one.

Built on the table format below it; knows nothing of directories, manifests or what a key means.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from openckpt.lazy import lazy_attributes

if TYPE_CHECKING:
    from openckpt.formats.bundle.encoder import Sliced, Strings, Variants, encode_bundle
    from openckpt.formats.bundle.entry import BundleEntry, encode_entries, encode_entry, parse_entry
    from openckpt.formats.bundle.header import Header, encode_header, header_of, table_kind
    from openckpt.formats.bundle.opening import open_bundle
    from openckpt.formats.bundle.reader import BundleReader

_HOMES = {
    "BundleEntry": "entry",
    "BundleReader": "reader",
    "Header": "header",
    "Sliced": "encoder",
    "Strings": "encoder",
    "Variants": "encoder",
    "encode_bundle": "encoder",
    "encode_entries": "entry",
    "encode_entry": "entry",
    "encode_header": "header",
    "header_of": "header",
    "open_bundle": "opening",
    "parse_entry": "entry",
    "table_kind": "header",
}

__all__ = [
    "BundleEntry",
    "BundleReader",
    "Header",
    "Sliced",
    "Strings",
    "Variants",
    "encode_bundle",
    "encode_entries",
    "encode_entry",
    "encode_header",
    "header_of",
    "open_bundle",
    "parse_entry",
    "table_kind",
]

__getattr__ = lazy_attributes(__name__, _HOMES)
