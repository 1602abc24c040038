"""The manifest: what is accepted, what is refused with which code, and what is written (formats 4)."""

from __future__ import annotations

import sys

import pytest

from openckpt.errors import FormatError, LimitError, Where
from openckpt.formats import manifest
from openckpt.formats.manifest import Manifest, parse_manifest
from openckpt.limits import Limits

WHERE = "run/checkpoint"
HEAD = 'model_checkpoint_path: "a"\n'


def parse(text: str) -> Manifest:
    return parse_manifest(text.encode(), WHERE)


def codes(parsed: Manifest) -> list[str]:
    return [problem.code for problem in parsed.problems]


def code_of(data: bytes) -> str:
    with pytest.raises(FormatError) as caught:
        parse_manifest(data, WHERE)
    return caught.value.code


MANAGER = b"""model_checkpoint_path: "ckpt-8"
all_model_checkpoint_paths: "ckpt-7"
all_model_checkpoint_paths: "ckpt-8"
all_model_checkpoint_timestamps: 1795153856.773191
all_model_checkpoint_timestamps: 1795153856.7752366
last_preserved_timestamp: 1795153855.7693934
"""


def test_a_manifest_of_checkpointmanager_reads_and_writes_back_byte_for_byte():
    """The example of formats 4.1."""
    parsed = parse_manifest(MANAGER, WHERE)

    assert parsed == Manifest(
        "ckpt-8", ("ckpt-7", "ckpt-8"), (1795153856.773191, 1795153856.7752366), 1795153855.7693934
    )
    assert manifest.encode_manifest(parsed) == MANAGER


ACCEPTED = [
    ('model_checkpoint_path: "a"', "a", "no newline at the end"),
    ("model_checkpoint_path: 'a'", "a", "single quotes"),
    ('model_checkpoint_path:"a"', "a", "no space"),
    ('model_checkpoint_path : "a"', "a", "space before the colon"),
    ('model_checkpoint_path: "a" "b"\n  \'c\'', "abc", "adjacent strings"),
    ('# one\nmodel_checkpoint_path: # two\n "a" # three', "a", "comments"),
    ('model_checkpoint_path: "a#b"', "a#b", "no comment in a string"),
    ('model_checkpoint_path: "a";', "a", "semicolon"),
    ('model_checkpoint_path: "a", last_preserved_timestamp: 1', "a", "comma, two fields on a line"),
    ('model_checkpoint_path: "a"\r\n', "a", "Windows line ends"),
    (r'model_checkpoint_path: "\303\251\x41\x4g\u20ac\U0001F600"', "éA\x04g€😀", "octal, hex and Unicode escapes"),
    (r'model_checkpoint_path: "\ud83d\ude00"', "😀", "a surrogate pair"),
    (r'model_checkpoint_path: "\"\'\\\n\r\t\a\b\f\v\177"', "\"'\\\n\r\t\a\b\f\v\x7f", "every short escape"),
    ('model_checkpoint_path: "é€😀"', "é€😀", "raw UTF-8"),
    (r'model_checkpoint_path: "C:\\run\\ckpt-7"', "C:\\run\\ckpt-7", "a Windows path as TensorFlow writes it"),
    (r'model_checkpoint_path: "\0"', "\0", "a zero byte"),
    ("model_checkpoint_path: 'it\"s'", 'it"s', "the other quote"),
]


@pytest.mark.parametrize(("text", "path", "why"), ACCEPTED)
def test_text_format_is_accepted_whole(text, path, why):
    """One literal text per rule of formats 4.1; none is odd."""
    parsed = parse(text)
    assert (parsed.model_checkpoint_path, codes(parsed)) == (path, []), why


@pytest.mark.parametrize(
    ("text", "paths"),
    [
        ('all_model_checkpoint_paths: ["a", "b" "c"]', ("a", "bc")),
        ("all_model_checkpoint_paths: []", ()),
        ('all_model_checkpoint_paths: ["a"] all_model_checkpoint_paths: "b"', ("a", "b")),
    ],
)
def test_lists_and_repeated_fields_add_up(text, paths):
    """List syntax and repetition mix."""
    assert parse(HEAD + text).all_model_checkpoint_paths == paths


@pytest.mark.parametrize(
    ("number", "value"),
    [("5", 5.0), ("-1.5e3", -1500.0), ("1.5f", 1.5), (".5", 0.5), ("5.", 5.0), ("inf", float("inf")), ("-Infinity", float("-inf")),
     ("1e400", float("inf")), ("inff", float("inf")), ("+7", 7.0)],
)  # fmt: skip
def test_numbers_are_read_in_every_spelling(number, value):
    """Those that TensorFlow's reader takes."""
    assert parse(HEAD + f"last_preserved_timestamp: {number}").last_preserved_timestamp == value


def test_a_field_given_twice_holds_its_last_value_and_says_so():
    """As in TensorFlow, which merges."""
    parsed = parse(HEAD + 'model_checkpoint_path: "b"')
    assert parsed.model_checkpoint_path == "b"
    assert codes(parsed) == ["manifest.repeated-field"]


UNKNOWN = [
    "x: 1",
    'x: "s" "t"',
    "x { }",
    "x < y: 1 >",
    "x: { y { z: [1, 2] } }",
    "x { a: [{b: 1}, <c: 2>], d: -0x1F; e: foo }",
    "[pkg.ext]: 3",
    "x { [type.googleapis.com/pkg.Type] { a: 1 } }",
    "17: 4",
    "x: []",
    "x: -inf",
]


@pytest.mark.parametrize("field", UNKNOWN)
def test_an_unknown_field_is_skipped_with_a_warning(field):
    """What follows it is read all the same."""
    parsed = parse(f"{field}\n{HEAD}{field}, all_model_checkpoint_paths: 'a'")
    assert parsed.model_checkpoint_path == "a"
    assert parsed.all_model_checkpoint_paths == ("a",)
    assert codes(parsed) == ["manifest.unknown-field"] * 2


def test_ten_thousand_nested_unknown_messages_do_not_exhaust_the_stack():
    """Nesting is walked, not recursed into."""
    depth = 10_000
    parsed = parse(HEAD + "x { " * depth + "}" * depth)
    assert depth > sys.getrecursionlimit()
    assert codes(parsed) == ["manifest.unknown-field"]


def test_a_windows_path_with_single_backslashes_is_read_as_tensorflow_does_and_warned_of():
    """Both characters of an unknown escape are kept."""
    parsed = parse(r'model_checkpoint_path: "D:\models\ckpt-7"')
    assert parsed.model_checkpoint_path == r"D:\models\ckpt-7"
    assert codes(parsed) == ["manifest.odd-escape"] * 2


def test_a_path_that_is_not_utf8_keeps_its_bytes():
    """The octal escapes of an old writer on a Latin-1 system."""
    parsed = parse(r'model_checkpoint_path: "caf\351"')
    assert parsed.model_checkpoint_path.encode("utf-8", "surrogateescape") == b"caf\xe9"
    assert codes(parsed) == ["manifest.path-not-utf8"]
    assert parse_manifest(manifest.encode_manifest(parsed), WHERE).model_checkpoint_path == parsed.model_checkpoint_path


def test_a_byte_order_mark_is_read_over_and_warned_of():
    """Windows editors add it; TensorFlow then ignores the file."""
    parsed = parse_manifest(b"\xef\xbb\xbf" + HEAD.encode(), WHERE)
    assert (parsed.model_checkpoint_path, codes(parsed)) == ("a", ["manifest.byte-order-mark"])


def test_timestamps_that_do_not_match_the_paths_are_noted():
    """One timestamp for two checkpoints."""
    parsed = parse(HEAD + 'all_model_checkpoint_paths: ["a", "b"] all_model_checkpoint_timestamps: 1')
    assert codes(parsed) == ["manifest.timestamp-count"]


REFUSED = [
    (b"", "manifest.empty"),
    (b"\n", "manifest.no-model-path"),
    (b"# nothing but a comment", "manifest.no-model-path"),
    (b'model_checkpoint_path: ""', "manifest.no-model-path"),
    (b'all_model_checkpoint_paths: "a"', "manifest.no-model-path"),
    (b"\xff\xfem\x00o\x00", "manifest.not-utf8"),
    (b'model_checkpoint_path: "caf\xe9"', "manifest.not-utf8"),
    (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n", "manifest.lfs-pointer"),
    (b"<!DOCTYPE html><html></html>", "manifest.not-a-manifest"),
    (b'{"json": true}', "manifest.not-a-manifest"),
    (b"\x00" * 100, "manifest.not-a-manifest"),
    (b"\x84\xa8".replace(b"\x84\xa8", b"hello world"), "manifest.not-a-manifest"),
    (b'model_checkpoint_path "a"', "manifest.not-a-manifest"),
    (b"model_checkpoint_path: 5", "manifest.not-a-manifest"),
    (b'model_checkpoint_path: "a\nb"', "manifest.not-a-manifest"),
    (b'model_checkpoint_path: ["a"]', "manifest.not-a-manifest"),
    (HEAD.encode() + b'all_model_checkpoint_paths: "b', "manifest.bad-syntax"),
    (HEAD.encode() + b'all_model_checkpoint_paths: ["b",]', "manifest.bad-syntax"),
    (HEAD.encode() + b'all_model_checkpoint_paths: ["b"', "manifest.bad-syntax"),
    (HEAD.encode() + b"all_model_checkpoint_timestamps: 007", "manifest.bad-syntax"),
    (HEAD.encode() + b"all_model_checkpoint_timestamps: x", "manifest.bad-syntax"),
    (HEAD.encode() + b"last_preserved_timestamp: [1]", "manifest.bad-syntax"),
    (HEAD.encode() + b";;", "manifest.bad-syntax"),
    (HEAD.encode() + b"x: {", "manifest.bad-syntax"),
    (HEAD.encode() + b"x: { y: 1 >", "manifest.bad-syntax"),
    (HEAD.encode() + b"x: 5.5.5", "manifest.bad-syntax"),
    (HEAD.encode() + b"[x", "manifest.bad-syntax"),
    (HEAD.encode() + rb'all_model_checkpoint_paths: "\x"', "manifest.bad-syntax"),
    (HEAD.encode() + rb'all_model_checkpoint_paths: "\u12"', "manifest.bad-syntax"),
    (HEAD.encode() + rb'all_model_checkpoint_paths: "\777"', "manifest.bad-syntax"),
    (HEAD.encode() + rb'all_model_checkpoint_paths: "\ud800"', "manifest.bad-syntax"),
    (HEAD.encode() + rb'all_model_checkpoint_paths: "\ud800x\udc00"', "manifest.bad-syntax"),
    (HEAD.encode() + rb'all_model_checkpoint_paths: "\udc00"', "manifest.bad-syntax"),
    (HEAD.encode() + rb'all_model_checkpoint_paths: "\U00110000"', "manifest.bad-syntax"),
]


@pytest.mark.parametrize(("data", "code"), REFUSED)
def test_what_is_no_manifest_is_refused_with_its_code(data, code):
    """Literal bytes and the code they give."""
    assert code_of(data) == code


def test_a_syntax_error_names_line_and_column():
    """Counted from 1, the offset in bytes from 0."""
    with pytest.raises(FormatError) as caught:
        parse_manifest(HEAD.encode() + "\n  é".encode(), WHERE)
    assert "line 3, column 3" in str(caught.value)
    assert caught.value.where == Where(WHERE, offset=len(HEAD) + 3)


def test_a_manifest_above_the_limit_is_refused_before_it_is_read():
    """The cap is the caller's."""
    with pytest.raises(LimitError):
        parse_manifest(HEAD.encode(), WHERE, Limits(manifest_bytes=10))


def test_thousands_of_unknown_fields_make_a_hundred_findings():
    """The report stays bounded."""
    assert len(parse(HEAD + "x:1 " * 2000).problems) == 100


@pytest.mark.parametrize(
    ("entry", "absolute"),
    [
        ("ckpt-7", False),
        ("../other/ckpt-7", False),
        ("/abs/ckpt-7", True),
        ("C:\\run\\ckpt-7", True),
        ("C:/run/ckpt-7", True),
        ("\\\\host\\share\\ckpt-7", True),
        ("C:ckpt-7", False),
        ("gs://bucket/ckpt-7", True),
    ],
)
def test_windows_paths_and_urls_are_absolute_on_every_system(entry, absolute):
    """Joining one to a directory would make a name that never meant anything."""
    assert manifest.is_absolute_entry(entry) is absolute


@pytest.mark.parametrize(
    ("entry", "name"),
    [("ckpt-7", "ckpt-7"), ("/a/b/ckpt-7", "ckpt-7"), ("C:\\run\\ckpt-7", "ckpt-7"), ("C:\\run/ckpt-7", "ckpt-7"),
     ("a\\b", "a\\b"), ("/home/run/", "")],
)  # fmt: skip
def test_the_name_of_an_entry_is_its_last_part(entry, name):
    """A backslash divides only in a Windows path."""
    assert manifest.entry_name(entry) == name
