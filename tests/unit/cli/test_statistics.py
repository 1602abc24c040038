"""The numbers that ``show`` prints, against numpy's own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import ml_dtypes
import numpy as np
import pytest

from openckpt.cli import statistics as module
from openckpt.cli.statistics import compute_histogram, compute_statistics, is_numeric, widen

if TYPE_CHECKING:
    from openckpt.cli.statistics import Numbers

NUMERIC = ["f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "?", "c8", "c16"]


@pytest.mark.parametrize("dtype", NUMERIC)
def test_numbers_equal_numpys(dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Range, mean, deviation and zeros are numpy's, although the array goes through in small pieces."""
    monkeypatch.setattr(module, "_PIECE", 7)
    array: Numbers = np.random.default_rng(1).integers(0, 5, (5, 9)).astype(dtype)
    reference = np.abs(array).astype("f8") if array.dtype.kind == "c" else array.astype("f8")
    s = compute_statistics(array)
    assert (s.count, s.nan, s.inf) == (45, 0, 0)
    assert (s.minimum, s.maximum) == (reference.min(), reference.max())
    assert s.mean == pytest.approx(reference.mean(), rel=1e-12)
    assert s.std == pytest.approx(reference.std(), rel=1e-12)
    assert s.zeros == int((reference == 0).sum())


def test_non_finite_values_are_counted_and_left_out() -> None:
    """One NaN must not make every other number a NaN."""
    s = compute_statistics(np.array([1.0, np.nan, 3.0, np.inf, -np.inf, -np.inf]))
    assert (s.nan, s.inf, s.minimum, s.maximum, s.mean) == (1, 3, 1.0, 3.0, 2.0)


def test_complex_nan_in_either_part_counts() -> None:
    """``abs(inf+nanj)`` is inf in C; here it is not a number."""
    s = compute_statistics(np.array([complex(1, float("nan")), complex(float("inf"), float("nan")), 3 + 4j]))
    assert (s.nan, s.maximum) == (2, 5.0)


@pytest.mark.parametrize("array", [np.zeros((0, 3)), np.array([np.nan, np.inf])])
def test_without_finite_values_there_is_no_range(array: Numbers) -> None:
    """Empty and all-NaN tensors have counts and nothing else."""
    s = compute_statistics(array)
    assert (s.count, s.minimum, s.maximum, s.mean, s.std) == (array.size, None, None, None, None)
    assert compute_histogram(array, s) is None


def test_integer_range_is_exact_beyond_float64() -> None:
    """2**64 - 1 has no float64."""
    s = compute_statistics(np.array([2**64 - 1, 1], dtype="u8"))
    assert (s.minimum, s.maximum) == (1, 2**64 - 1)


@pytest.mark.parametrize(
    "array",
    [np.random.default_rng(2).normal(size=1000), np.array([1.7e308, -1.7e308, 0.0]), np.arange(-50, 50),
     np.array([2**63 - 1, -(2**63)]), np.array([5e-324, 0.0]), np.array([1.0, np.nextafter(1.0, 2)])],
)  # fmt: skip
def test_every_finite_value_is_in_the_histogram(array: Numbers) -> None:
    """Counts add up, edges rise, and the largest range does not overflow."""
    histogram = compute_histogram(array, compute_statistics(array))
    assert histogram is not None
    assert sum(histogram.counts) == array.size
    assert list(histogram.edges) == sorted(histogram.edges)
    assert len(histogram.edges) == len(histogram.counts) + 1
    assert np.isfinite(histogram.edges).all()


def test_histogram_equals_numpys() -> None:
    """On an ordinary tensor it is `numpy.histogram`."""
    array = np.random.default_rng(3).normal(size=10_000).astype("f4")
    histogram = compute_histogram(array, compute_statistics(array))
    assert histogram is not None
    counts, edges = np.histogram(array.astype("f8"), bins=module.BINS)
    assert histogram.counts == tuple(counts.tolist())
    assert histogram.edges == pytest.approx(edges)


@pytest.mark.parametrize(("array", "counts"), [(np.array([3, 5, 5]), (1, 0, 2)), (np.array([True, True]), (2,))])
def test_small_integers_get_one_bin_per_value(array: Numbers, counts: tuple[int, ...]) -> None:
    """A bin that holds "1.25 to 2.5" says nothing about labels and flags."""
    histogram = compute_histogram(array, compute_statistics(array))
    assert histogram is not None
    assert histogram.counts == counts


def test_constant_floats_have_no_histogram() -> None:
    """There is no range to divide."""
    array = np.ones(100)
    assert compute_histogram(array, compute_statistics(array)) is None


@pytest.mark.parametrize("name", ["bfloat16", "float8_e5m2", "float8_e4m3fn", "float8_e4m3fnuz", "float8_e4m3b11fnuz",
                                  "float8_e5m2fnuz", "float4_e2m1fn", "int4", "uint4", "int2", "uint2"])  # fmt: skip
def test_types_that_numpy_lacks_widen_without_loss(name: str) -> None:
    """Every value of the type survives the way there and back."""
    narrow = np.dtype(getattr(ml_dtypes, name))
    raw = np.arange(65536, dtype="u2").view(narrow) if narrow.itemsize == 2 else np.arange(256, dtype="u1").view(narrow)
    if narrow.name.startswith(("int", "uint")):
        raw = raw.astype("i1").astype(narrow)
    wide = widen(raw)
    assert wide.dtype.name in ("float32", "int8", "uint8")
    with np.errstate(invalid="ignore"):
        np.testing.assert_array_equal(wide.astype(narrow).astype("f4"), raw.astype("f4"))


def test_strings_are_not_numeric() -> None:
    """Object arrays of bytes have no statistics."""
    assert not is_numeric(np.array([b"a"], dtype=object))
