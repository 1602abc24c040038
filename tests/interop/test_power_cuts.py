"""Stock TensorFlow, started after a power cut, finds the old checkpoint, the new one or none, as openckpt's own readers do."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fault.histories import PLAIN
from fault.judging import ABSENT, state_of
from openckpt.testing import Image

pytestmark = pytest.mark.interop


def seen_by_tensorflow(tf: Any, prefix: str) -> str:
    """Return the state of a prefix as TensorFlow reads it, `ABSENT` where it says that there is none."""
    if not tf.compat.v1.train.checkpoint_exists(prefix):
        return ABSENT
    reader = tf.train.load_checkpoint(prefix)
    return state_of({key: reader.get_tensor(key) for key in reader.get_variable_to_shape_map()}, dual=True)


@pytest.mark.parametrize("name", ["four-shards", "manifest", "overwrite", "overwrite-alone", "merge-over"])
def test_tensorflow_finds_old_or_new_on_every_image(
    tf: Any, name: str, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    """Every set of checkpoint files that a power cut leaves; temporary files lie beside them."""
    history = PLAIN[name]()
    seen: set[object] = set()
    for cut, expected in history.cuts():
        for image in cut.images(limit=12):
            files = frozenset((path, data) for path, data in image.files.items() if ".openckpt-" not in path)
            moment = (files, repr(expected))
            if moment in seen:
                continue
            seen.add(moment)
            check(tf, image, expected, tmp_path / str(len(seen)))
    record_property(
        "proof", f"power loss, read by stock TensorFlow, {name}: {len(seen)} distinct sets of files, 0 broken"
    )
    assert len(seen) > 8


def check(tf: Any, image: Image, expected: Any, folder: Path) -> None:
    image.write_to(str(folder))
    for prefix, allowed in expected.states.items():
        assert seen_by_tensorflow(tf, f"{folder}/{prefix}") in allowed, image.replay
    latest = tf.train.latest_checkpoint(str(folder / "run"))
    assert (ABSENT if latest is None else latest.removeprefix(f"{folder}/")) in expected.latest, image.replay
