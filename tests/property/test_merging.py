"""Whatever parts a checkpoint is dealt to, the merge gives it back; whatever is in a part, the merge ends with a known error."""

from __future__ import annotations

from contextlib import closing
from typing import Any

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import strategies
from openckpt.errors import ConflictError, FormatError
from openckpt.formats.bundle import Sliced, encode_bundle, open_bundle
from openckpt.formats.bundle.merging import merge_indexes
from openckpt.formats.names import INDEX_SUFFIX, shard_name
from openckpt.storage.memory import MemoryStore

fast = settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@st.composite
def dealt(draw: Any) -> tuple[dict[str, np.ndarray], list[dict[str, Any]]]:
    """``(whole values, parts)``: each tensor in one part, or its pieces in any parts; a part may have nothing."""
    keys = draw(st.lists(strategies.tensor_keys, min_size=1, max_size=6, unique=True))
    parts: list[dict[str, Any]] = [{} for _ in range(draw(st.integers(1, 4)))]
    values: dict[str, np.ndarray] = {}
    for key in keys:
        if draw(st.booleans()):
            _, values[key] = draw(strategies.arrays())
            draw(st.sampled_from(parts))[key] = values[key]
            continue
        _, values[key], pieces = draw(strategies.sliced())
        for extents, piece in pieces.pieces.items():
            part = draw(st.sampled_from(parts))
            part[key] = Sliced(pieces.shape, {**(part[key].pieces if key in part else {}), extents: piece})
    return values, parts


def encoded(parts: list[dict[str, Any]], shards: int) -> dict[str, dict[str, bytes]]:
    return {f"p{number}": encode_bundle(part, f"p{number}", shards=shards) for number, part in enumerate(parts)}


@fast
@given(case=dealt(), shards=st.integers(1, 3))
def test_what_was_dealt_to_parts_reads_whole_after_the_merge(
    case: tuple[dict[str, np.ndarray], list[dict[str, Any]]], shards: int
) -> None:
    """Every value is back, every data file that holds one has a number, and the doctor's checks find nothing to object to."""
    values, parts = case
    files = encoded(parts, shards)

    merged = merge_indexes([(name, part[name + INDEX_SUFFIX]) for name, part in files.items()])

    count = merged.header.num_shards
    data = {
        f"m/{shard_name('ckpt', number, count)}": files[origin.part][shard_name(*origin)]
        for number, origin in enumerate(merged.origins)
    }
    store = MemoryStore({"m/ckpt.index": merged.encode(), **data})
    assert len(merged.origins) == count == len(set(merged.origins))
    with closing(open_bundle(store, "m/ckpt")) as ckpt:
        assert sorted(ckpt.keys()) == sorted(values)
        for key, value in values.items():
            assert ckpt.read(key).tobytes() == value.tobytes()
        assert [finding for finding in ckpt.validate() if finding.severity == "error"] == []


@fast
@given(case=dealt(), damage=st.data())
def test_damaged_parts_end_in_a_known_error(
    case: tuple[dict[str, np.ndarray], list[dict[str, Any]]], damage: st.DataObject
) -> None:
    """A flipped byte, a cut, a part given twice: refused by name, or harmless."""
    sound = [part[name + INDEX_SUFFIX] for name, part in encoded(case[1], 1).items()]
    indexes = list(sound)
    number = damage.draw(st.integers(0, len(indexes) - 1))
    index = bytearray(indexes[number])
    kind = damage.draw(st.sampled_from(["flip", "cut", "twice"]))
    if kind == "flip":
        index[damage.draw(st.integers(0, len(index) - 1))] ^= damage.draw(st.integers(1, 255))
    elif kind == "cut":
        del index[damage.draw(st.integers(0, len(index) - 1)) :]
    else:
        indexes.append(indexes[number])
    indexes[number] = bytes(index)

    try:
        merged = merge_indexes([(f"p{place}", data) for place, data in enumerate(indexes)])
    except (FormatError, ConflictError) as error:
        assert error.code.partition(".")[0] in ("bundle", "table", "slices", "limits", "spec")
    else:
        # What no checksum covers, the handle of the empty metaindex block, may change; and a part of nothing be doubled.
        assert kind == "flip" or (kind == "twice" and not case[1][number])
        expected = merge_indexes([(f"p{place}", data) for place, data in enumerate(sound)])
        assert dict(merged.entries) == dict(expected.entries)
