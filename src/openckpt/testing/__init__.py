"""Storage that fails, loses power and dies on command: prove a saver, ours or yours, before a disk does.

    PowerLossFS     in memory; yields every state that a weak file system may show after a power cut
    FaultyFS        the n-th call fails, once or for ever; short and torn writes
    OrderFS         asserts that names come after bytes, the index after the data, deletions after the switch
    run_killed      SIGKILL in the n-th call of a child process, on a real directory

All are `openckpt.storage.writable.WritableStore`: pass one as ``store=`` to whatever saves. How to use them:
docs/how-to/test-your-own-saver.md.

Lies above every room but the command line, and is imported by none of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from openckpt.lazy import lazy_attributes

_HOMES = {
    "Call": "calls",
    "CallFS": "calls",
    "Cut": "powerloss",
    "Ending": "killing",
    "FaultyFS": "faulty",
    "Image": "images",
    "OrderFS": "order",
    "PowerLossFS": "powerloss",
    "count_calls": "killing",
    "run_killed": "killing",
}

__all__ = [
    "Call",
    "CallFS",
    "Cut",
    "Ending",
    "FaultyFS",
    "Image",
    "OrderFS",
    "PowerLossFS",
    "count_calls",
    "run_killed",
]

if TYPE_CHECKING:
    from openckpt.testing.calls import Call, CallFS
    from openckpt.testing.faulty import FaultyFS
    from openckpt.testing.images import Image
    from openckpt.testing.killing import Ending, count_calls, run_killed
    from openckpt.testing.order import OrderFS
    from openckpt.testing.powerloss import Cut, PowerLossFS

__getattr__ = lazy_attributes(__name__, _HOMES)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
