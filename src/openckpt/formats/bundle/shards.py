"""The data files of one checkpoint: found, opened, and told apart from missing ones (formats 2.1, 2.11)."""

from __future__ import annotations

from collections.abc import Callable

from openckpt.errors import ConflictError, CorruptionError, Where
from openckpt.formats.bundle.entry import BundleEntry
from openckpt.formats.names import INDEX_SUFFIX, parse_shard_name, shard_name
from openckpt.storage.reading import ByteSource, Store

_EAGER = 64  # shards that are opened with the index, so that a sweep or an overwrite cannot mix two saves
_MOST_EXPECTED = 10_000  # announced to an archive, which then loads them in one pass
_MOST_OPEN = 512  # open files at a time; the usual limit of a process is 1,024


class Shards:
    """Opens the shards ``0 .. count-1`` of a prefix; thread-safe.

    Args:
        store: where they lie.
        prefix: as a path of the store.
        count: how many the index names.
        is_current: whether that index still is the one of the prefix; a save over it removes the shards.
    """

    def __init__(self, store: Store, prefix: str, count: int, is_current: Callable[[], bool]) -> None:
        self._store, self._prefix, self._is_current = store, prefix, is_current
        self.stated = count
        self.count = count
        """the count in the file names: the header's, unless only another complete set is there (formats 2.11)"""
        self._open: dict[int, ByteSource] = {}
        self._failed: dict[int, OSError] = {}
        store.expect([self.path(shard) for shard in range(min(count, _MOST_EXPECTED))])
        for shard in range(min(count, _EAGER)):
            self._try(shard)
        if self._failed:
            self._use_other_count()

    def path(self, shard: int) -> str:
        """Return the store path of a shard."""
        return shard_name(self._prefix, shard, self.count)

    def display(self, shard: int) -> str:
        """Return a shard's name as shown to people."""
        return self._store.display(self.path(shard))

    def _try(self, shard: int) -> ByteSource | None:
        try:
            source = self._store.open(self.path(shard))
        except OSError as error:
            self._failed[shard] = error
            return None
        if len(self._open) >= _MOST_OPEN:
            # Dropped, not closed: a thread that still reads from it keeps it open until it is done.
            self._open.pop(next(iter(self._open)), None)
        self._open[shard] = source
        return source

    def _use_other_count(self) -> None:
        # TensorFlow's merge writes a num_shards that counts parts without data; the names then carry another number.
        directory, name = self._store.split(self._prefix)
        try:
            names = [parse_shard_name(stat.name) for stat in self._store.scan(directory) if stat.kind == "file"]
        except OSError:
            return
        sets: dict[int, set[int]] = {}
        for parsed in names:
            if parsed is not None and parsed[0] == name:
                sets.setdefault(parsed[2], set()).add(parsed[1])
        whole = [count for count, ids in sets.items() if ids == set(range(count))]
        if self.stated in sets or len(whole) != 1:
            return
        for source in self._open.values():
            source.close()
        self.count = whole[0]
        self._open, self._failed = {}, {}
        for shard in range(min(self.count, _EAGER)):
            self._try(shard)

    def get(self, shard: int, key: str) -> ByteSource:
        """Return an open shard.

        Raises:
            CorruptionError: no such file (``bundle.shard-missing``), or the entry names a shard that cannot exist
                (``bundle.shard-range``).
            ConflictError: it went when the checkpoint was replaced or removed (``storage.changed``).
            OSError: the system refused.
        """
        source = self._open.get(shard)
        if source is not None:
            return source
        if shard >= self.count:
            raise CorruptionError(
                "bundle.shard-range",
                Where(self._store.display(self._prefix + INDEX_SUFFIX), key),
                f"the tensor lies in shard {shard}, which cannot exist",
                expected=f"a shard below {self.count}",
                found=shard,
            )
        if shard not in self._failed:
            source = self._try(shard)
            if source is not None:
                return source
        error = self._failed[shard]
        if isinstance(error, FileNotFoundError) and not self._is_current():
            message = "another program replaced or removed this checkpoint since it was opened"
            raise ConflictError("storage.changed", Where(self.display(shard), key), message)
        if isinstance(error, FileNotFoundError):
            raise CorruptionError(
                "bundle.shard-missing", Where(self.display(shard), key), "this data file of the checkpoint is missing"
            )
        error.add_note(f"while opening shard {shard} of {self._store.display(self._prefix)}")
        raise error

    def _on_disk(self) -> set[str]:
        directory, _ = self._store.split(self._prefix)
        try:
            return {stat.name for stat in self._store.scan(directory) if stat.kind != "dir"}
        except OSError:
            return set()

    def check_apart(self, key: str, pieces: list[BundleEntry]) -> None:
        """Refuse pieces that are longer together than the files they lie in: thousands could claim the same bytes."""
        claimed: dict[int, int] = {}
        for piece in pieces:
            claimed[piece.shard] = claimed.get(piece.shard, 0) + piece.size
        for shard, nbytes in claimed.items():
            source = self.get(shard, key)
            if nbytes > source.size:
                raise CorruptionError(
                    "bundle.overlap",
                    Where(source.path, key),
                    "the slices of this tensor share bytes of the data file",
                    expected=f"at most {source.size} bytes",
                    found=f"{nbytes} bytes in {len(pieces)} slices",
                )

    def missing(self) -> list[int]:
        """Return the ids of the shards that are not there; one look at the directory, however many the header claims."""
        if len(self._open) == self.count:
            return []
        names = self._on_disk()
        return [
            shard
            for shard in range(self.count)
            if shard not in self._open and self._store.split(self.path(shard))[1] not in names
        ]

    def paths(self) -> tuple[str, ...]:
        """Return the names, as shown to people, of the shards that are there."""
        if len(self._open) == self.count:
            return tuple(self.display(shard) for shard in range(self.count))
        missing = set(self.missing())
        return tuple(self.display(shard) for shard in range(self.count) if shard not in missing)

    def close(self) -> None:
        """Close the files."""
        for source in list(self._open.values()):
            source.close()
