"""What the bytes of a data file tell about how it came to be wrong, and Keras files that lack weights."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from openckpt.doctor.damage import count_line_feeds, has_grown_by, is_all_zero, text_mode_pairs
from openckpt.doctor.keras_checks import check_optimizer
from openckpt.doctor.loss import merge_losses
from openckpt.findings import Lost, make_finding
from openckpt.formats.spec import TensorSpec
from openckpt.storage.memory import MemorySource


def source(data: bytes) -> MemorySource:
    return MemorySource("shard", data)


@pytest.mark.parametrize(
    ("data", "zero"), [(b"", False), (bytes(1), True), (bytes(3 << 20), True), (bytes(3 << 20) + b"\1", False)]
)
def test_all_zero(data: bytes, zero: bool) -> None:
    """Only a file that has bytes, all of them zero."""
    assert is_all_zero(source(data)) is zero


def test_pairs_across_the_pieces_that_are_read_count() -> None:
    """A carriage return at the end of one piece and the line feed at the start of the next are a pair."""
    data = b"x" * ((1 << 20) - 1) + b"\r" + b"\n" + b"y\n"
    feeds = count_line_feeds(source(data))
    assert (feeds.total, feeds.after_return) == (2, 1)


def test_text_mode_is_told_from_honest_data() -> None:
    """Random bytes have line feeds of their own; after a transfer in text mode not one of them stands alone."""
    data = np.random.default_rng(1).bytes(100_000)
    assert text_mode_pairs(source(data)) is None
    mangled = source(data.replace(b"\n", b"\r\n"))
    pairs = text_mode_pairs(mangled)
    assert pairs == data.count(b"\n")
    assert has_grown_by(mangled, len(data), pairs)
    assert not has_grown_by(mangled, mangled.size, pairs)


def test_a_few_pairs_need_the_exact_size() -> None:
    """One line feed after a carriage return is chance, unless the file is longer by just that byte."""
    few = source(b"ab\r\ncd")
    assert text_mode_pairs(few) == 1
    assert has_grown_by(few, 5, 1)
    assert not has_grown_by(few, 3, 1)


def test_losses_are_merged_without_counting_twice() -> None:
    """The union of the tensors, the sum of their parameters, the total of the checkpoint."""
    findings = [
        make_finding("bundle.crc-mismatch", "x", "m", lost=Lost(("a",), 3, 10)),
        make_finding("bundle.crc-mismatch", "x", "m", lost=Lost(("b", "c"), 4, 10)),
        make_finding("bundle.string-lengths", "x", "m", lost=Lost(("b",), 2, 10)),
        make_finding("bundle.padding", "x", "m"),
    ]
    assert merge_losses(findings) == Lost(("a", "b", "c"), 7, 10)
    assert merge_losses(findings[3:]) is None


def keras_reader(shapes: dict[str, tuple[int, ...]]) -> Any:
    def items() -> Iterator[tuple[str, TensorSpec]]:
        return ((key, TensorSpec("float32", shape, None)) for key, shape in shapes.items())

    return SimpleNamespace(items=items, path="model.keras")


ADAM = {f"optimizer/vars/{number}": shape for number, shape in enumerate([(), (), (2, 3), (2, 3), (3,), (3,)])}


@pytest.mark.parametrize(
    ("shapes", "lost"),
    [
        (ADAM, Lost((), 9, 9)),
        (ADAM | {"layers/dense/vars/0": (2, 3)}, Lost((), 3, 9)),
        (ADAM | {"layers/dense/vars/0": (2, 3), "layers/dense/vars/1": (3,)}, None),
        ({"optimizer/vars/0": (), "optimizer/vars/1": (), "optimizer/vars/2": (2, 3), "layers/d/vars/0": (2, 3)}, None),
        ({"optimizer/vars/0": (), "optimizer/vars/1": (), "optimizer/vars/2": (4,), "optimizer/vars/3": (5,)}, None),
        ({}, None),
    ],
    ids=["no weight", "one weight", "all weights", "momentum", "factored", "empty"],
)
def test_optimizer_knows_weights_that_the_file_lacks(shapes: dict[str, tuple[int, ...]], lost: Lost | None) -> None:
    """Both moments of a weight betray it; optimizers that keep other state say nothing."""
    findings = list(check_optimizer(keras_reader(shapes)))
    assert [finding.lost for finding in findings] == ([] if lost is None else [lost])
    assert all(finding.code == "run.optimizer-without-weights" for finding in findings)
