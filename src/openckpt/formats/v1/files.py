"""Which files a V1 checkpoint consists of (formats 3.1).

    model.ckpt-7                       unsharded: the table is named like the prefix
    model.ckpt-7-00000-of-00002        sharded: one table per shard
    model.ckpt-7-?????-of-00002        what a manifest calls the two of them

A table may also merely be named like a shard (an export called ``export-00000-of-00001``); it then is a set of one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from openckpt.formats.names import parse_v1_shard_name, v1_shard_name
from openckpt.limits import DEFAULT_LIMITS, Limits

if TYPE_CHECKING:
    from openckpt.storage.reading import Store


@dataclass(frozen=True, slots=True)
class V1Files:
    """The tables of one V1 checkpoint.

    Attributes:
        paths: those that are there, in shard order.
        missing: those that are not, by the count in the names of the others.
    """

    paths: tuple[str, ...]
    missing: tuple[str, ...] = ()


def find_v1_files(store: Store, path: str, *, limits: Limits = DEFAULT_LIMITS) -> V1Files:
    """Return the files behind a file, a shard, the ``?????`` pattern or the bare prefix of a sharded checkpoint.

    A path without any such file comes back as it is, for the system to say that it does not exist. Where shards of several
    counts share a prefix, a complete set goes before an incomplete one, and the larger before the smaller.

    Raises:
        LimitError: the name states more shards than ``limits.shards``.
    """
    directory, name = store.split(path)
    own = store.stat(path)
    parsed = parse_v1_shard_name(name)
    if own is not None and own.kind == "file":
        if parsed is None or parsed[2] <= 1:
            return V1Files((path,))
    elif own is not None:
        return V1Files((path,))
    prefix = name if parsed is None else parsed[0]
    shards: dict[int, set[int]] = {}
    for entry in store.scan(directory):
        found = parse_v1_shard_name(entry.name)
        if found is not None and entry.kind == "file" and found[0] == prefix and found[1] is not None:
            shards.setdefault(found[2], set()).add(found[1])
    if parsed is not None:
        count = parsed[2]
    elif shards:
        count = max(shards, key=lambda n: (shards[n] >= set(range(min(n, limits.shards))), len(shards[n]), n))
    else:
        return V1Files((path,))
    limits.check("shards", count, store.display(path), "the number of shards in the name")
    there = shards.get(count, set())
    names = [(number in there, store.join(directory, v1_shard_name(prefix, number, count))) for number in range(count)]
    paths = tuple(shard for present, shard in names if present)
    return V1Files(paths, tuple(shard for present, shard in names if not present)) if paths else V1Files((path,))
