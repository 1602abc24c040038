"""Hostile meta graphs and SavedModels (formats 5): sizes that lie, graphs without end, text that is none."""

from __future__ import annotations

from attacks.attack import Attack
from attacks.craft import bundle, entry, field, floats, varint

VALUE = floats(1.0)
LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"


def _meta(name: str, code: str, data: bytes) -> Attack:
    """A .meta file beside a sound checkpoint, whose tensors do not depend on it."""
    return Attack(name, {**bundle([(b"a", entry(VALUE))], VALUE), "ckpt.meta": data}, "ckpt", code, how="doctor")


def _export(name: str, code: str, data: bytes) -> Attack:
    """A SavedModel around a sound checkpoint."""
    files = bundle([(b"a", entry(VALUE))], VALUE, prefix="variables/variables")
    return Attack(name, {**files, "saved_model.pb": data}, ".", code, how="doctor")


def _object(*fields: bytes) -> bytes:
    return field(7, field(1, field(7, b"".join(fields))))


CASES = [
    _meta("empty", "meta.empty", b""),
    _meta("lfs-pointer", "meta.lfs-pointer", LFS),
    _meta("error-page", "meta.does-not-parse", b"<html>" + b"x" * 1000),
    _meta("graph-longer-than-the-file", "meta.does-not-parse", b"\x12" + varint(1 << 50) + b"x" * 100),
    _meta("length-of-2-to-the-64", "meta.does-not-parse", b"\x12" + b"\xff" * 9 + b"\x01"),
    _meta("varint-without-end", "meta.does-not-parse", b"\x0a" + b"\x80" * 100_000),
    _meta("groups-in-groups", "meta.does-not-parse", b"\x0b" * 100_000),
    _meta("node-longer-than-the-graph", "meta.does-not-parse", field(2, b"\x0a" + varint(1 << 20))),
    _meta("saver-of-rubbish", "meta.does-not-parse", field(3, b"\xff" * 50)),
    _meta("version-that-is-no-text", "meta.does-not-parse", field(1, field(5, b"\xff\xfe"))),
    _meta("collection-that-lies", "meta.does-not-parse", field(4, field(1, b"variables") + field(2, field(2, b"\x0a\x7f")))),
    _meta("shape-of-too-many-dimensions", "limits.exceeded", _object(field(2, field(2, b"") * 300))),
    _meta("cut-in-half", "meta.does-not-parse", field(1, field(5, b"1.15") * 10)[:-3]),
    _export("export-empty", "savedmodel.empty", b""),
    _export("export-lfs-pointer", "savedmodel.lfs-pointer", LFS),
    _export("export-error-page", "savedmodel.does-not-parse", b"<?xml version='1.0'?><Error/>"),
    _export("export-cut", "savedmodel.does-not-parse", field(1, 1) + field(2, bytes(1000))[:500]),
    _export("export-of-nothing", "savedmodel.no-meta-graph", field(1, 1)),
    _export("export-of-another-schema", "savedmodel.schema-version", field(1, 1 << 40) + field(2, field(1, b""))),
    _export("export-of-objects-without-end", "savedmodel.does-not-parse", field(1, 1) + field(2, field(7, b"\x0a\x00" * 50_000 + b"\x0a"))),
]  # fmt: skip
