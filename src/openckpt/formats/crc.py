"""CRC-32C (Castagnoli) and TensorFlow's masking of stored checksums (formats 0.1).

fastcrc was chosen by measurement: MIT, one millisecond to import, any buffer, releases the GIL, and faster on one thread than
google-crc32c, crc32c and awscrt (docs/benchmarks.md).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastcrc.crc32 import iscsi as _iscsi

if TYPE_CHECKING:
    from collections.abc import Callable

    crc32c: Callable[..., int]

crc32c = _iscsi  # crc32c(data, initial=None) -> int; an alias, because a wrapper would cost as much as a small checksum
"""``crc32c(data, initial=None)`` returns the CRC-32C of any bytes-like object, continuing from ``initial``."""

MASK_DELTA = 0xA282EAD8
"""what masking adds to the rotated CRC"""


def mask_crc(crc: int) -> int:
    """Return the masked form of a CRC as it is stored in files."""
    return (((crc >> 15) | (crc << 17)) + MASK_DELTA) & 0xFFFFFFFF


def unmask_crc(masked: int) -> int:
    """Return the CRC of its masked form."""
    rotated = (masked - MASK_DELTA) & 0xFFFFFFFF
    return ((rotated >> 17) | (rotated << 15)) & 0xFFFFFFFF
