"""A reader's lease: a shared lock on the open index, which asks those who sweep up to spare the checkpoint.

It writes nothing and ends with the reader's process, however that ends; TensorFlow does not know of it. Who removes a checkpoint
tries for the exclusive lock (`openckpt.storage.removing`). Apart from that module, because every listing takes a lease.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from openckpt.storage.reading import ByteSource


@runtime_checkable
class _Leasable(Protocol):
    def lease(self) -> bool: ...


def lease(source: ByteSource) -> bool:
    """Ask that an open index, and so its checkpoint, is kept until the source is closed; False where it is being removed now.

    Sources that know no leases (members of archives, memory) need none.
    """
    return source.lease() if isinstance(source, _Leasable) else True
