"""Members of an archive as a `Store`, read in place: nothing is ever unpacked to disk (docs/format/archives.md).

``zip``, ``tar`` and Magenta ``.mag`` bundles are random access: a stored member is a window on the archive's own bytes.
``tar.gz``, ``tar.bz2``, ``tar.xz`` can only be read from the start: one pass lists, one more loads what belongs together.
Names inside an archive are data; none of them ever reaches the file system, and no link is followed.

Must not import anything of openckpt but errors, limits, findings and the rest of storage.
"""

from __future__ import annotations

from openckpt.storage.archive.kinds import ArchiveKind, archive_kind, open_archive
from openckpt.storage.archive.store import ArchiveStore, Member

__all__ = ["ArchiveKind", "ArchiveStore", "Member", "archive_kind", "open_archive"]
