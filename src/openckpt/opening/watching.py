"""What a program asks that looks at a run from outside, by TensorFlow's names: `checkpoints_iterator`, `get_checkpoint_mtimes`."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence

from openckpt.formats.names import INDEX_SUFFIX, parse_v1_shard_name, v1_shard_name
from openckpt.opening.tensorflow_api import latest_checkpoint
from openckpt.storage import LOCAL

_PAUSE = 1.0  # seconds between two looks, TensorFlow's


def checkpoints_iterator(
    checkpoint_dir: str | os.PathLike[str],
    min_interval_secs: float = 0,
    timeout: float | None = None,
    timeout_fn: Callable[[], bool] | None = None,
    *,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[str]:
    """Yield the newest checkpoint of a directory, and every newer one as it comes: what an evaluation beside a training loops over.

    A step that is open is not swept by an openckpt manager; one that was swept before it was opened is a `PathNotFoundError`.

    Args:
        checkpoint_dir: where a training saves; need not exist yet.
        min_interval_secs: between two that are yielded.
        timeout: seconds to wait for the next one; None waits for ever.
        timeout_fn: asked when the time is over: True ends it, False waits again. Without it a timeout ends it.
        clock: seconds, of any beginning.
        sleep: waits so many seconds.
    """
    seen: str | None = None
    while True:
        found = _wait_for_another(checkpoint_dir, seen, timeout, clock, sleep)
        if found is None:
            if timeout_fn is None or timeout_fn():
                return
            continue
        begun = clock()
        seen = found
        yield found
        rest = begun + min_interval_secs - clock()
        if rest > 0:
            sleep(rest)


def _wait_for_another(
    directory: str | os.PathLike[str],
    seen: str | None,
    timeout: float | None,
    clock: Callable[[], float],
    sleep: Callable[[float], None],
) -> str | None:
    end = None if timeout is None else clock() + timeout
    while True:
        found = latest_checkpoint(directory)
        if found is not None and found != seen:
            return found
        if end is not None and clock() + _PAUSE > end:
            return None
        sleep(_PAUSE)


def get_checkpoint_mtimes(checkpoint_prefixes: Sequence[str | os.PathLike[str]]) -> list[float]:
    """Return when each checkpoint was written, seconds since 1970 (TensorFlow: whole ones); what is not there is left out."""
    found = []
    for given in checkpoint_prefixes:
        prefix = os.fsdecode(given)
        part = parse_v1_shard_name(prefix)
        names = [prefix + INDEX_SUFFIX, prefix]
        if part is not None and part[1] is None:
            names.append(v1_shard_name(part[0], 0, part[2]))
        stat = next((stat for name in names if (stat := LOCAL.stat(name)) is not None), None)
        if stat is not None:
            found.append(stat.mtime_ns / 1e9)
    return found
