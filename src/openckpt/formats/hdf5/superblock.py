"""The HDF5 superblock: is this HDF5, and are all of its bytes here? Answered without libhdf5 (docs/format/hdf5-and-keras.md).

    89 "HDF" 0d 0a 1a 0a    signature, at byte 0, 512, 1024, 2048 ... (a user block may lie before it)
    version 0, 1            ver fs st 0 sh O L 0 | leaf:2 inner:2 flags:4 | v1: 4 more | base:O free:O end:O driver:O root entry
    version 2, 3            ver O L flags | base:O extension:O end:O root:O checksum:4

O and L are the bytes of an offset and of a length. ``end`` is where the file must end at the earliest: the cheapest proof
that a download broke off.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from openckpt.errors import CorruptionError, UnsupportedError, Where

if TYPE_CHECKING:
    from openckpt.storage.reading import ByteSource

SIGNATURE = b"\x89HDF\r\n\x1a\n"
_TEXT_MODE = (
    b"\x89HDF\n\x1a\n",
    b"\x89HDF\r\r\n\x1a\r\n",
    b"\x89HDF\r\n\x1a\r\n",
    b"\tHDF\r\n\x1a\n",
    b"\xef\xbf\xbdHDF",
)
_LONGEST = 8 + 16 + 4 + 4 + 4 * 8

NOT_CLOSED = "the file is marked as still open for writing"


@dataclass(frozen=True, slots=True)
class Superblock:
    """What the superblock says.

    Attributes:
        version: 0 to 3.
        offset: byte at which it was found (the size of the user block).
        offset_size: bytes of an address in this file.
        length_size: bytes of a length in this file.
        end: byte at which the file ends at the earliest.
        open_for_writing: the writer never closed the file (version 3 only).
    """

    version: int
    offset: int
    offset_size: int
    length_size: int
    end: int
    open_for_writing: bool


def find_signature(source: ByteSource) -> int | None:
    """Return the offset of the HDF5 signature, or None where the file is not HDF5."""
    at = 0
    while at + len(SIGNATURE) <= source.size:
        if source.read_at(at, len(SIGNATURE)) == SIGNATURE:
            return at
        at = at * 2 or 512
    return None


def read_superblock(source: ByteSource) -> Superblock:
    """Read the superblock and hold the end of the file against it.

    Raises:
        CorruptionError: not HDF5 (``hdf5.no-signature``), damaged in transfer (``hdf5.text-mode``), damaged
            (``hdf5.superblock``), or shorter than it says (``hdf5.truncated``).
        UnsupportedError: a superblock version that nobody has defined yet (``hdf5.version``), or one part of a file that
            lies in several (``hdf5.driver``).
    """
    at = find_signature(source)
    if at is None:
        raise _not_hdf5(source)
    where = Where(source.path, offset=at)
    data = source.read_at(at, min(_LONGEST, source.size - at))
    try:
        block = _parse(data, at, where)
    except IndexError:
        raise CorruptionError(
            "hdf5.truncated", where, "the file ends inside the HDF5 superblock", found=f"{source.size} bytes"
        ) from None
    if block.end > source.size:
        raise CorruptionError(
            "hdf5.truncated",
            Where(source.path, offset=source.size),
            "the file is shorter than its superblock says",
            expected=f"at least {block.end} bytes",
            found=f"{source.size} bytes",
        )
    return block


def _not_hdf5(source: ByteSource) -> CorruptionError:
    head = source.read_at(0, min(16, source.size))
    if head.startswith(_TEXT_MODE):
        return CorruptionError(
            "hdf5.text-mode",
            Where(source.path, offset=0),
            "the HDF5 signature was changed on the way, as a transfer in text mode does",
            expected=SIGNATURE.hex(" "),
            found=head[: len(SIGNATURE)].hex(" "),
        )
    return CorruptionError(
        "hdf5.no-signature",
        Where(source.path, offset=0),
        "this is not an HDF5 file",
        expected=SIGNATURE.hex(" "),
        found=head.hex(" ") or "an empty file",
    )


def _parse(data: bytes, at: int, where: Where) -> Superblock:
    version = data[8]
    if version in (0, 1):
        offset_size, length_size = data[13], data[14]
        fields = 24 + (4 if version == 1 else 0)
        flags = 0
    elif version in (2, 3):
        offset_size, length_size, flags = data[9], data[10], data[11]
        fields = 12
    else:
        raise UnsupportedError(
            "hdf5.version", where, "an unknown version of the HDF5 superblock", expected="0 to 3", found=version
        )
    if offset_size not in (2, 4, 8) or length_size not in (2, 4, 8):
        raise CorruptionError(
            "hdf5.superblock",
            where,
            "the superblock states sizes of addresses that HDF5 does not have",
            expected="2, 4 or 8 bytes",
            found=f"{offset_size} and {length_size}",
        )
    end_at = fields + 2 * offset_size
    driver_at = end_at + offset_size
    data[driver_at - 1]  # an IndexError here is a file that ends inside its superblock
    if version < 2 and data[driver_at : driver_at + offset_size].strip(b"\xff"):
        # libhdf5 1.14 forgets to close what it opened for such a driver, and the process dies of it at its end.
        raise UnsupportedError(
            "hdf5.driver",
            Where(where.path, offset=at + driver_at),
            "the superblock names a driver that keeps one HDF5 file in several",
            expected=f"no address ({'ff ' * offset_size}".rstrip() + ")",
            found=data[driver_at : driver_at + offset_size].hex(" "),
        )
    base = int.from_bytes(data[fields : fields + offset_size], "little")
    end = int.from_bytes(data[end_at : end_at + offset_size], "little")
    # Where a user block was stripped from or put before the file, every address moves along (libhdf5 does the same).
    end -= base - at
    return Superblock(version, at, offset_size, length_size, end, bool(version == 3 and flags & 1))
