"""Where bytes live, and the only code that opens a file (the one door to the disk).

`Store` is a tree of named files - the local file system, the members of an archive, a dictionary in memory - and
`ByteSource` the random-access bytes of one of them. Everything above reads through these two protocols, so a format
reader works unchanged on a file, inside ``zoo.tar.gz`` and on bytes in memory.

Must not import anything of openckpt but errors, limits and findings.
"""

from __future__ import annotations

from openckpt.storage.local import LOCAL, LocalStore
from openckpt.storage.reading import ByteSource, FileStat, Store, read_whole

__all__ = ["LOCAL", "ByteSource", "FileStat", "LocalStore", "Store", "read_whole"]
