"""Checksums of zip members, for the formats that are zips: ``.keras`` and ``.npz``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from openckpt.errors import CorruptionError, Where

if TYPE_CHECKING:
    from openckpt.storage.reading import ByteSource

_CHUNK = 1 << 20


def stated_crc(source: ByteSource) -> int | None:
    """Return the CRC-32 that the archive states for this member; None for a plain file."""
    crc: int | None = getattr(source, "crc32", None)
    return crc


def check_member(source: ByteSource) -> None:
    """Read a whole member and hold it against its CRC-32; does nothing for a plain file.

    Raises:
        CorruptionError: ``archive.crc-mismatch``, or what is wrong with the compressed data.
    """
    stated = stated_crc(source)
    if stated is None:
        return
    from zlib import crc32

    crc = 0
    for at in range(0, source.size, _CHUNK):
        crc = crc32(source.read_at(at, min(_CHUNK, source.size - at)), crc)
    if crc != stated:
        raise crc_mismatch(Where(source.path), stated, crc)


def check_stored(source: ByteSource) -> None:
    """Check a member that lies in its archive as it is; one that is packed is checked whenever it is unpacked."""
    from openckpt.storage.archive.sources import UnpackedSource

    if stated_crc(source) is not None and not isinstance(source, UnpackedSource):
        check_member(source)


def crc_mismatch(where: Where, stated: int, computed: int) -> CorruptionError:
    """Make the error for a member whose bytes changed."""
    return CorruptionError(
        "archive.crc-mismatch",
        where,
        "the checksum that the zip states for this member does not match",
        expected=f"{stated:#010x}",
        found=f"{computed:#010x}",
    )
