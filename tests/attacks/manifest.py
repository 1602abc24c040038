"""Hostile manifests (formats 4): text that nests, repeats, escapes and points where it should not."""

from __future__ import annotations

from attacks.attack import Attack

GOOD = b'model_checkpoint_path: "ckpt-1"\n'


def _manifest(name: str, code: str, data: bytes, *, how: str = "read") -> Attack:
    return Attack(name, {"checkpoint": data}, "checkpoint", code, how=how)  # type: ignore[arg-type]


def _lying(name: str, code: str, data: bytes) -> Attack:
    """Not even like a manifest, so that the file alone is called by what it is; the doctor of the directory knows its name."""
    return Attack(name, {"checkpoint": data}, ".", code, how="doctor")


CASES = [
    _lying("empty", "manifest.empty", b""),
    _lying("only-comments", "manifest.no-model-path", b"# a\n" * 100_000),
    _manifest("empty-path", "manifest.no-model-path", b'model_checkpoint_path: ""'),
    _lying("binary", "manifest.not-utf8", GOOD + bytes(range(256))),
    _lying("utf-16", "manifest.not-utf8", GOOD.decode().encode("utf-16")),
    _lying("lfs-pointer", "manifest.lfs-pointer", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"),
    _manifest("nested-messages-never-closed", "manifest.bad-syntax", GOOD + b"x { " * 10_000),
    _manifest("nested-lists", "manifest.bad-syntax", GOOD + b"x: " + b"[" * 100_000),
    _manifest("brackets-that-do-not-match", "manifest.bad-syntax", GOOD + b"x { y < " * 5_000 + b"} > " * 5_000),
    _manifest("string-without-end", "manifest.bad-syntax", GOOD + b'all_model_checkpoint_paths: "' + b"a" * 500_000),
    _manifest("backslashes-without-end", "manifest.bad-syntax", GOOD + b'all_model_checkpoint_paths: "' + b"\\" * 500_001),
    _manifest("string-of-half-surrogates", "manifest.bad-syntax", GOOD + b'all_model_checkpoint_paths: "' + b"\\ud800" * 9 + b'"'),
    _manifest("escape-beyond-unicode", "manifest.bad-syntax", GOOD + b'all_model_checkpoint_paths: "\\UFFFFFFFF"'),
    _manifest("extension-name-without-end", "manifest.bad-syntax", GOOD + b"[" + b"a." * 50_000),
    _manifest("number-of-a-million-digits", "manifest.bad-syntax", GOOD + b"x: " + b"9" * 1_000_000 + b"z"),
    _manifest("signs-only", "manifest.bad-syntax", GOOD + b"last_preserved_timestamp: " + b"-+" * 200_000),
    _manifest("path-of-a-megabyte", "run.newest-missing", b'model_checkpoint_path: "' + b"a/" * 500_000 + b'"', how="doctor"),
    _manifest("shard-count-of-5000-digits", "run.newest-missing", b'model_checkpoint_path: "a-00000-of-' + b"9" * 5000 + b'"', how="doctor"),
    _manifest("path-with-zero-bytes", "run.newest-missing", b'model_checkpoint_path: "a\\0b"', how="doctor"),
    _manifest(
        "ten-thousand-unknown-messages", "manifest.unknown-field", GOOD + b"x { " * 10_000 + b"}" * 10_000, how="doctor"
    ),
    _manifest("thousands-of-unknown-fields", "manifest.unknown-field", GOOD + b"x: 1;" * 20_000, how="doctor"),
    _manifest("path-of-bytes-that-are-no-text", "manifest.path-not-utf8", b'model_checkpoint_path: "\\377\\376"', how="doctor"),
    _manifest("names-itself", "run.newest-missing", b'model_checkpoint_path: "checkpoint"', how="doctor"),
]  # fmt: skip
