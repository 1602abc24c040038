"""Writing a zip: stored members, one behind the other, the same bytes for the same members on every system and at any time."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Sequence
from typing import IO, cast

_EPOCH = (1980, 1, 1, 0, 0, 0)
_PIECE = 8 << 20


class ZipWriter:
    """Writes one zip onto a seekable file, which is left open. It must be finished or abandoned."""

    def __init__(self, file: io.RawIOBase | io.BytesIO) -> None:
        self._zip = zipfile.ZipFile(cast("IO[bytes]", file), "w", zipfile.ZIP_STORED, allowZip64=True)

    def add(self, name: str, parts: Sequence[bytes | memoryview]) -> None:
        """Write one member, its bytes in parts; raises OSError as the file does."""
        info = zipfile.ZipInfo(name, _EPOCH)
        info.create_system = 3  # else the bytes would depend on the system
        size = sum(map(len, parts))
        with self._zip.open(info, "w", force_zip64=size >= zipfile.ZIP64_LIMIT) as member:
            for part in parts:
                for at in range(
                    0, len(part), _PIECE
                ):  # checksummed in pieces that the cache still has when they are written
                    member.write(part[at : at + _PIECE])

    def finish(self) -> None:
        """Write the directory of the zip."""
        self._zip.close()

    def abandon(self) -> None:
        """Let go of the file without finishing it."""
        self._zip.fp = None  # else the zip would write its directory when it is collected
