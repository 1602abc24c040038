"""Hostile bundles (formats 2): entries, shards, slices and strings that lie inside a table without a flaw."""

from __future__ import annotations

from attacks.attack import Attack
from attacks.craft import (
    GRAPH_KEY,
    bundle,
    entry,
    extents,
    field,
    floats,
    header,
    shape,
    slice_key,
    sliced,
    strings,
    table,
    variants,
    varint,
)

DATA = floats(1.0, 2.0, 3.0, 4.0)
GOOD = entry(DATA, 4)
HUGE = (1 << 62) - 1


def _entry(name: str, code: str, raw: bytes, data: bytes = DATA, *, how: str = "read") -> Attack:
    """A bundle of one key "a" whose entry is ``raw``."""
    return Attack(name, bundle([(b"a", raw)], data), "ckpt", code, how=how)  # type: ignore[arg-type]


def _header(name: str, code: str, head: bytes, *, how: str = "read") -> Attack:
    return Attack(name, bundle([(b"a", GOOD)], DATA, head=head), "ckpt", code, how=how)  # type: ignore[arg-type]


def _string(name: str, code: str, data: bytes, crc: int, *dims: int, dtype: int = 7) -> Attack:
    return _entry(name, code, entry(data, *dims, dtype=dtype, crc=crc), data)


def _pieces(
    name: str, code: str, *pieces: tuple[int, int], dims: tuple[int, ...] = (4,), listed: int | None = None
) -> Attack:
    """A partitioned vector; each piece's entry points into the one shard."""
    spans = pieces if listed is None else pieces[:listed]
    items = [(slice_key(b"w", span), entry(DATA[: 4 * span[1]], span[1], size=4 * span[1])) for span in pieces]
    items.append((b"w", sliced(*dims, slices=[extents(span) for span in spans])))
    return Attack(name, bundle(sorted(dict(items).items()), DATA), "ckpt", code)


def _slices_not_stored(count: int) -> dict[str, bytes]:
    """A full entry that lists so many slices, none of which is stored."""
    return bundle([(b"w", sliced(count, slices=[extents((number, 1)) for number in range(count)]))], DATA)


def _slices_on_the_same_bytes() -> dict[str, bytes]:
    """5,000 slices of 64 KiB each, all of them the same 64 KiB of the data file."""
    row = bytes(1 << 16)
    proto = entry(row, 1, 1 << 16, dtype=4)
    spans = [((number, 1), (0, 1 << 16)) for number in range(5000)]
    items = [(slice_key(b"w", *span), proto) for span in spans]
    items.append((b"w", sliced(5000, 1 << 16, dtype=4, slices=[extents(*span) for span in spans])))
    return bundle(sorted(items), row)


def _pinwheel(rings: int, *, again: bool = False) -> dict[str, bytes]:
    """Slices that no plane divides: pinwheels within a pinwheel, each of four bars around the next; all of them zeros.

    ``again`` shifts one bar by a cell, so that it lies on another one.
    """
    side = 2 * rings + 1
    spans = [((rings, 1), (rings, 1))]
    for k in range(rings):
        bar, far = side - 2 * k - 1, side - k - 1
        spans += [((k, 1), (k, bar)), ((k, bar), (far, 1)), ((far, 1), (k + 1, bar)), ((k + 1, bar), (k, 1))]
    if again:
        spans[1] = ((0, 1), (1, 2 * rings))
    data = bytes(side)
    items = [
        (slice_key(b"w", *span), entry(data[: span[0][1] * span[1][1]], span[0][1], span[1][1], dtype=4))
        for span in spans
    ]
    items.append((b"w", sliced(side, side, dtype=4, slices=[extents(*span) for span in spans])))
    return bundle(sorted(items), data)


def _ten_thousand_bad_entries() -> dict[str, bytes]:
    return bundle([(b"%05d" % number, b"\xff") for number in range(10_000)], DATA)


_LIE = strings(b"ab", b"c")
_VARIANT = variants(b"x" * 8)

CASES = [
    # The header.
    Attack(
        "no-header", {"ckpt.index": table([(b"a", GOOD)]), "ckpt.data-00000-of-00001": DATA}, "ckpt", "bundle.no-header"
    ),
    Attack("empty-table", {"ckpt.index": table([]), "ckpt.data-00000-of-00001": DATA}, "ckpt", "bundle.no-header"),
    _header("header-unparsable", "bundle.bad-header", b"\x08\x01\x1a\xff\x01"),
    _header("header-endless-varint", "bundle.bad-header", b"\x08" + b"\xff" * 12),
    _header("header-group", "bundle.bad-header", header() + b"\x23\x24"),
    _header("num-shards-zero", "bundle.bad-header", header(0)),
    _header("num-shards-negative", "bundle.bad-header", header(-1)),
    _header("num-shards-2-to-31", "limits.exceeded", header((1 << 31) - 1)),
    _header("endianness-2", "bundle.endianness", header(endianness=2)),
    _header("min-consumer-2", "bundle.version", header(version=field(1, 9) + field(2, 2))),
    _header("bad-consumer-1", "bundle.version", header(version=field(1, 1) + field(3, 1))),
    _header("bad-consumers-packed", "bundle.version", header(version=field(1, 1) + field(3, b"\x05\x01"))),
    # An entry and its proto.
    _entry("entry-empty-tag", "bundle.bad-entry", b"\x00"),
    _entry("entry-unparsable", "bundle.bad-entry", b"\xff\xff\xff"),
    _entry("entry-length-past-end", "bundle.bad-entry", field(1, 1) + b"\x12\x7f"),
    _entry("entry-dtype-as-bytes", "bundle.bad-entry", field(1, b"\x01") + field(2, shape(4)) + field(5, 16)),
    _entry("entry-shape-as-varint", "bundle.bad-entry", field(1, 1) + field(2, 4) + field(5, 16)),
    _entry("entry-crc-as-varint", "bundle.bad-entry", field(1, 1) + field(2, shape(4)) + field(5, 16) + field(6, 7)),
    _entry("entry-field-number-zero", "bundle.bad-entry", GOOD + b"\x02\x00"),
    _entry("shape-unparsable", "bundle.bad-entry", entry(DATA, shape_bytes=b"\x12\x05\x08")),
    _entry("dim-is-endless-varint", "bundle.bad-entry", entry(DATA, shape_bytes=field(2, b"\x08" + b"\xff" * 11))),
    _entry("dim-negative", "bundle.bad-shape", entry(DATA, -4)),
    _entry("dim-minimum-int64", "bundle.bad-shape", entry(DATA, -(1 << 63))),
    _entry("dims-product-overflows", "bundle.size-mismatch", entry(DATA, 1 << 32, 1 << 32)),
    _entry("dims-product-overflows-to-size", "bundle.size-mismatch", entry(DATA, (1 << 62) + 1, 4)),
    _entry("dims-zero-times-huge", "limits.exceeded", entry(b"", 0, HUGE, HUGE), b""),
    _entry("rank-100", "limits.exceeded", entry(DATA, *([1] * 99), 4)),
    _entry("rank-300", "limits.exceeded", entry(DATA, *([1] * 299), 4)),
    _entry("rank-100000", "limits.exceeded", entry(DATA, *([1] * 100_000))),
    _entry("shape-of-unknown-rank", "bundle.bad-shape", entry(DATA, shape_bytes=shape(unknown=True))),
    _entry("dtype-invalid", "spec.unknown-dtype", entry(DATA, 4, dtype=0)),
    _entry("dtype-99", "spec.unknown-dtype", entry(DATA, 4, dtype=99)),
    _entry("dtype-negative", "spec.unknown-dtype", entry(DATA, 4, dtype=-1)),
    _entry("dtype-resource", "bundle.resource", entry(DATA, 4, dtype=20)),
    Attack("ten-thousand-bad-entries", _ten_thousand_bad_entries, "ckpt", "bundle.bad-entry"),
    # Where the data lies.
    _entry("size-one-too-small", "bundle.size-mismatch", entry(DATA, 4, size=15)),
    _entry("size-petabytes", "bundle.data-truncated", entry(DATA, 1 << 50, size=1 << 52)),
    _entry("size-negative", "bundle.bad-entry", entry(DATA, 4, size=-16)),
    _entry("offset-negative", "bundle.bad-entry", entry(DATA, 4, offset=-16)),
    _entry("offset-past-end", "bundle.data-truncated", entry(DATA, 4, offset=17)),
    _entry("offset-plus-size-wraps", "bundle.data-truncated", entry(DATA, 4, offset=(1 << 63) - 8)),
    _entry("shard-truncated", "bundle.data-truncated", GOOD, DATA[:-1]),
    _entry("shard-empty", "bundle.data-truncated", GOOD, b""),
    _entry("shard-id-one-of-one", "bundle.shard-range", entry(DATA, 4, shard=1)),
    _entry("shard-id-negative", "bundle.bad-entry", entry(DATA, 4, shard=-1)),
    _entry("shard-id-2-to-31", "bundle.shard-range", entry(DATA, 4, shard=1 << 31)),
    _entry("crc-flipped", "bundle.crc-mismatch", entry(DATA, 4, crc=1)),
    _entry("crc-left-out", "bundle.crc-mismatch", field(1, 1) + field(2, shape(4)) + field(5, 16)),
    _entry("data-flipped", "bundle.crc-mismatch", GOOD, DATA[:-1] + b"\x41"),
    Attack("shard-missing", {"ckpt.index": bundle([(b"a", GOOD)], DATA)["ckpt.index"]}, "ckpt", "bundle.shard-missing"),
    Attack(
        "regions-overlap",
        bundle([(b"a", entry(DATA, 4)), (b"b", entry(DATA[4:12], 2, offset=4))], DATA),
        "ckpt",
        "bundle.overlap",
        how="doctor",
    ),
    # Strings and variants.
    _string("string-data-too-short", "bundle.string-lengths", b"\x01", 0, 1),
    _string("string-length-crc-wrong", "bundle.crc-mismatch", *strings(b"ab", b"c", length_crc=1), 2),
    _string(
        "string-lengths-exceed-data", "bundle.string-lengths", *strings(b"ab", b"c", lengths=[b"\x7f", b"\x7f"]), 2
    ),
    _string("string-length-2-to-63", "bundle.string-lengths", *strings(b"ab", lengths=[varint(1 << 63)]), 1),
    _string("string-length-endless", "bundle.string-lengths", *strings(b"ab", lengths=[b"\xff" * 10]), 1),
    _string("string-bytes-left-over", "bundle.string-lengths", *strings(b"abc", lengths=[b"\x02"]), 1),
    _string("string-crc-wrong", "bundle.crc-mismatch", _LIE[0], 1, 2),
    _string("string-2-to-40-elements", "bundle.string-lengths", *_LIE, 1 << 40),
    _string("string-shape-overflows", "bundle.string-lengths", *_LIE, 1 << 40, 1 << 40),
    _string("variant-length-past-end", "bundle.variant", *variants(b"x" * 8, length=9), 1, dtype=21),
    _string("variant-length-negative", "bundle.variant", *variants(b"x" * 8, length=-1), 1, dtype=21),
    _string("variant-2-to-40-elements", "bundle.variant", *_VARIANT, 1 << 40, dtype=21),
    _string("variant-crc-wrong", "bundle.crc-mismatch", _VARIANT[0][:-1] + b"\xee", _VARIANT[1], 1, dtype=21),
    # Slices.
    _pieces("slices-leave-a-gap", "slices.gap", (0, 1), (2, 2)),
    _pieces("slices-overlap", "slices.overlap", (0, 3), (2, 2)),
    _pieces("slice-outside-tensor", "slices.bad-extent", (0, 2), (2, 4)),
    _pieces("slice-of-another-rank", "slices.bad-extent", (0, 4), dims=(4, 1)),
    _pieces("slice-listed-twice", "slices.overlap", (0, 4), (0, 4)),
    Attack(
        "slice-not-stored",
        bundle(
            [
                (slice_key(b"w", (0, 2)), entry(DATA[:8], 2)),
                (b"w", sliced(4, slices=[extents((0, 2)), extents((2, 2))])),
            ],
            DATA,
        ),
        "ckpt",
        "bundle.slice-missing",
    ),
    Attack(
        "slice-nobody-lists",
        bundle([(slice_key(b"w", (0, 2)), entry(DATA[:8], 2))], DATA),
        "ckpt",
        "bundle.slice-orphan",
        how="doctor",
    ),
    Attack(
        "slice-of-another-dtype",
        bundle([(slice_key(b"w", (0, 4)), entry(DATA, 4, dtype=3)), (b"w", sliced(4, slices=[extents((0, 4))]))], DATA),
        "ckpt",
        "bundle.slice-contradicts",
    ),
    Attack(
        "slice-of-another-shape",
        bundle([(slice_key(b"w", (0, 4)), entry(DATA[:8], 2)), (b"w", sliced(4, slices=[extents((0, 4))]))], DATA),
        "ckpt",
        "bundle.slice-contradicts",
    ),
    Attack(
        "slice-that-is-sliced-itself",
        bundle(
            [
                (slice_key(b"w", (0, 4)), sliced(4, slices=[extents((0, 4))])),
                (b"w", sliced(4, slices=[extents((0, 4))])),
            ],
            DATA,
        ),
        "ckpt",
        "bundle.slice-contradicts",
    ),
    Attack(
        "slice-extent-negative",
        bundle([(b"w", sliced(4, slices=[field(1, field(1, -1) + field(2, 2))]))], DATA),
        "ckpt",
        "slices.bad-extent",
    ),
    Attack("slice-unparsable", bundle([(b"w", sliced(4, slices=[b"\x0a\x7f"]))], DATA), "ckpt", "slices.bad-extent"),
    Attack("two-hundred-thousand-slices", lambda: _slices_not_stored(200_000), "ckpt", "limits.exceeded"),
    Attack("twenty-thousand-slices-not-stored", lambda: _slices_not_stored(20_000), "ckpt", "bundle.slice-missing"),
    Attack("slices-that-no-plane-divides", lambda: _pinwheel(600), "ckpt", "slices.tangled"),
    Attack("slices-that-no-plane-divides-overlap", lambda: _pinwheel(300, again=True), "ckpt", "slices.overlap"),
    Attack("slices-on-the-same-bytes", _slices_on_the_same_bytes, "ckpt", "bundle.overlap"),
    Attack(
        "slices-zero-times-huge",
        bundle([(b"w", sliced(0, HUGE, HUGE, slices=[extents((0, 0), None, None)]))], DATA),
        "ckpt",
        "limits.exceeded",
    ),
    # The object graph inside.
    Attack("graph-is-a-number", bundle([(GRAPH_KEY, GOOD)], DATA), "ckpt", "graph.not-a-string", how="doctor"),
    Attack(
        "key-of-a-megabyte",
        lambda: bundle([(b"k" * (1 << 20) + b"k", GOOD)], DATA),
        "ckpt",
        "limits.exceeded",
    ),
]
