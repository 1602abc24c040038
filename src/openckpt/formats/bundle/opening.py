"""Opening a V2 checkpoint while another program may be saving over it: the old one or the new one, never a mixture.

TensorFlow replaces a prefix in this order (formats 2.11): new shards are renamed over the old ones, the index is written *in
place*, the parts in ``PREFIX_temp`` go. Seen from here: an index that is cut short, or new shards beside the old index. Both
last for milliseconds, and both show - the index changes under the reader, or ``PREFIX_temp`` is there and a shard is newer
than the index. Then the open is tried again.

An opened index is leased: retention that asks (openckpt's) spares a checkpoint for as long as it is open (`openckpt.storage.leases`).

openckpt replaces a prefix in one moment: the new data lies under another shard count, the index is renamed over the old one,
and then the old data goes. Seen from here: the old index, and shards of it that are not there any more; again the index shows it.
"""

from __future__ import annotations

import time

from openckpt.errors import CheckpointError, ConflictError
from openckpt.formats.bundle.reader import BundleReader
from openckpt.formats.bundle.saving import is_being_saved
from openckpt.formats.names import INDEX_SUFFIX
from openckpt.limits import DEFAULT_LIMITS, Limits
from openckpt.storage.leases import lease
from openckpt.storage.reading import Store

_ATTEMPTS = 8  # waits of 1, 2, 4 .. 64 ms between them


def open_bundle(store: Store, prefix: str, *, limits: Limits = DEFAULT_LIMITS) -> BundleReader:
    """Open the V2 checkpoint ``prefix`` (without ``.index``).

    While another program saves over this very prefix the answer is the old or the new checkpoint, never a mixture: index
    and shards are opened together and looked at again, up to a fifth of a second.

    Raises:
        FileNotFoundError: there is no ``prefix.index``.
        FormatError: the index is damaged, not an index, or of a newer version.
        ConflictError: it was replaced during every one of eight attempts (``storage.changed``).
    """
    path = prefix + INDEX_SUFFIX
    for attempt in range(_ATTEMPTS):
        last = attempt == _ATTEMPTS - 1
        index = store.open(path)
        try:
            reader = BundleReader(store, prefix, index, limits)
        except CheckpointError:
            # In this order: a save that is over when it is asked for has changed the index before the index is asked.
            moving = is_being_saved(store, prefix) or not index.unchanged()
            index.close()
            if last or not moving:
                raise
        else:
            settled = last or (
                lease(index) and not _half_replaced(store, reader)  # asked before the index is, as above
            )
            current = index.unchanged()
            if settled and current:
                return reader
            reader.close()
            if last:
                message = "another program replaces this checkpoint again and again"
                raise ConflictError("storage.changed", reader.path, message)
        time.sleep(0.001 * 2**attempt)
    raise AssertionError("the last attempt returns or raises")


def _half_replaced(store: Store, reader: BundleReader) -> bool:
    """Return whether new shards may lie beside the old index: the moment between TensorFlow's renames and its index."""
    if not is_being_saved(store, reader.prefix):
        return False
    index = store.stat(reader.prefix + INDEX_SUFFIX)
    shards = [store.stat(reader.shards.path(shard)) for shard in range(min(reader.shards.count, 64))]
    return index is None or any(shard is not None and shard.mtime_ns > index.mtime_ns for shard in shards)
