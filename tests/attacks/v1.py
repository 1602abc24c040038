"""Hostile V1 checkpoints (formats 3): lists that lie about values, values that lie about themselves."""

from __future__ import annotations

from attacks.attack import Attack
from attacks.craft import extents, field, floats, header, shape, slice_key, table, varint

ONES = field(5, floats(1.0, 1.0))
HUGE = 1 << 40


def tensor(name: bytes = b"a", *dims: int, dtype: int = 1, slices: tuple[bytes, ...] | None = None) -> bytes:
    """One record of the list; whole unless ``slices`` are given."""
    pieces = (extents(*[None] * len(dims)),) if slices is None else slices
    body = field(1, name) + field(2, shape(*dims)) + field(3, dtype) + b"".join(field(4, piece) for piece in pieces)
    return field(1, body)


def meta(*tensors: bytes, versions: bytes = field(1, 1)) -> bytes:
    return field(1, b"".join(tensors) + field(2, versions))


def data(proto: bytes, *pairs: tuple[int, int] | None, name: bytes = b"a") -> bytes:
    return field(2, field(1, name) + field(2, extents(*pairs)) + field(3, proto))


def _v1(name: str, code: str, head: bytes | None, *values: tuple[bytes, bytes], how: str = "read") -> Attack:
    items = sorted([*([] if head is None else [(b"", head)]), *values])
    return Attack(name, {"model.ckpt": table(items)}, "model.ckpt", code, how=how)  # type: ignore[arg-type]


def _value(name: str, code: str, proto: bytes, *dims: int, dtype: int = 1) -> Attack:
    whole = (None,) * len(dims)
    return _v1(name, code, meta(tensor(b"a", *dims, dtype=dtype)), (slice_key(b"a", *whole), data(proto, *whole)))


def _pieces(name: str, code: str, dims: tuple[int, ...], *spans: tuple[tuple[int, int], ...]) -> Attack:
    head = meta(tensor(b"a", *dims, slices=tuple(extents(*span) for span in spans)))
    values = {slice_key(b"a", *span): data(ONES, *span) for span in spans}
    return _v1(name, code, head, *values.items())


def _million_slices() -> dict[str, bytes]:
    head = meta(tensor(b"a", 4, slices=(extents((0, 1)),) * 1_000_001))
    return {"model.ckpt": table([(b"", head)])}


WHOLE = (slice_key(b"a", None), data(ONES, None))
CASES = [
    _v1("list-twice-the-same-name", "v1.duplicate-name", meta(tensor(b"a", 2), tensor(b"a", 2)), WHOLE),
    _v1("list-cut", "v1.bad-meta", meta(tensor(b"a", 2))[:-4], WHOLE),
    _v1("list-record-of-2-to-the-40", "v1.bad-meta", field(1, b"\x0a" + varint(HUGE)), WHOLE),
    _v1("list-of-groups", "v1.bad-meta", field(1, b"\x0b" * 1000), WHOLE),
    _v1("dimension-below-zero", "v1.bad-shape", meta(tensor(b"a", -1)), WHOLE),
    _v1("rank-of-a-thousand", "limits.exceeded", meta(tensor(b"a", *[1] * 1000)), WHOLE),
    _v1("rank-that-numpy-has-not", "v1.rank", meta(tensor(b"a", *[1] * 65)), WHOLE),
    _v1("future-version", "v1.version", meta(tensor(b"a", 2), versions=field(1, 9) + field(2, 9)), WHOLE),
    _v1("unknown-dtype", "spec.unknown-dtype", meta(tensor(b"a", 2, dtype=77)), WHOLE),
    _v1("dtype-that-v1-lacks", "v1.dtype", meta(tensor(b"a", 2, dtype=14)), WHOLE),
    _v1("unknown-rank", "v1.bad-shape", meta(field(1, field(1, b"a") + field(2, shape(unknown=True)) + field(3, 1))), WHOLE),
    _v1("no-values", "v1.slice-missing", meta(tensor(b"a", 2))),
    _v1("value-of-another-tensor", "v1.slice-mismatch", meta(tensor(b"a", 2)), (WHOLE[0], data(ONES, None, name=b"b"))),
    _v1("value-of-another-slice", "v1.slice-mismatch", meta(tensor(b"a", 2)), (WHOLE[0], data(ONES, (0, 2)))),
    _v1("value-that-is-no-message", "v1.bad-value", meta(tensor(b"a", 2)), (WHOLE[0], b"\x12\xff\xff\x7f")),
    _v1("value-without-data", "v1.bad-value", meta(tensor(b"a", 2)), (WHOLE[0], field(2, field(1, b"a")))),
    _v1("slice-proto-of-rubbish", "slices.bad-extent", meta(tensor(b"a", 2, slices=(b"\x0a\x7f",))), WHOLE),
    _v1("list-is-empty", "bundle.bad-header", b"", WHOLE),
    _v1("values-that-nobody-lists", "v1.unlisted-value", meta(tensor(b"a", 2)), WHOLE, (b"\x00zz", b""), how="doctor"),
    _value("shape-of-a-billion-two-stored", "v1.value-count", ONES, 1_000_000_000),
    _value("shape-beyond-memory", "limits.exceeded", ONES, 1 << 60, 1 << 60),
    _value("empty-shape-beyond-memory", "limits.exceeded", b"", 0, 1 << 62, 1 << 62),
    _value("half-a-float", "v1.bad-value", field(5, floats(1.0, 1.0)[:-1]), 2),
    _value("varint-cut", "v1.bad-value", field(7, b"\x01\x80"), 2, dtype=3),
    _value("varint-of-a-megabyte", "v1.bad-value", field(7, b"\x80" * (1 << 20) + b"\x00\x00"), 2, dtype=3),
    _value("more-varints-than-places", "v1.value-count", field(7, b"\x01" * (1 << 20)), 2, dtype=3),
    _value("more-strings-than-places", "v1.value-count", field(8, b"") * 100_000, 2, dtype=7),
    _pieces("slices-with-a-gap", "slices.gap", (6,), ((0, 2),), ((4, 2),)),
    _pieces("slices-that-overlap", "slices.overlap", (3,), ((0, 2),), ((1, 2),)),
    _pieces("slice-outside-its-tensor", "slices.bad-extent", (3,), ((0, 2),), ((2, 2),)),
    _pieces("slice-of-another-rank", "slices.bad-extent", (4,), ((0, 2), (0, 1)), ((2, 2), (0, 1))),
    _pieces("slices-of-a-trillion-elements", "v1.value-count", (HUGE,), ((0, HUGE // 2),), ((HUGE // 2, HUGE // 2),)),
    Attack("a-million-slices", _million_slices, "model.ckpt", "limits.exceeded"),
    Attack("bundle-index-without-its-suffix", {"model.ckpt": table([(b"", header())])}, "model.ckpt", "path.renamed-index"),
    Attack(
        "a-hundred-million-shards",
        {"model.ckpt-00000-of-99999999": table([(b"", meta(tensor(b"a", 2))), WHOLE])},
        "model.ckpt-00000-of-99999999",
        "limits.exceeded",
    ),
    Attack(
        "shards-that-disagree",
        {
            "model.ckpt-00000-of-00002": table([(b"", meta(tensor(b"a", 2))), WHOLE]),
            "model.ckpt-00001-of-00002": table([(b"", meta(tensor(b"a", 3))), WHOLE]),
        },
        "model.ckpt-?????-of-00002",
        "v1.conflict",
    ),
    Attack(
        "missing-shard",
        {"model.ckpt-00000-of-00002": table([(b"", meta(tensor(b"a", 2))), WHOLE])},
        "model.ckpt-00000-of-00002",
        "v1.shard-missing",
        how="doctor",
    ),
]  # fmt: skip
