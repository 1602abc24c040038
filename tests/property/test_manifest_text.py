"""Our parser of text format against protobuf's own, over generated manifests, well-formed and hostile."""

from __future__ import annotations

import math
import warnings

import pytest
from google.protobuf import text_format
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mirrors import MIRRORS
from openckpt.errors import FormatError
from openckpt.formats.manifest import Manifest, encode_manifest, parse_manifest

State = MIRRORS["CheckpointState"]
NAMES = [field.name for field in State.DESCRIPTOR.fields]


def reference(text: str):
    """What protobuf makes of a text, as TensorFlow calls it; None where it refuses."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # protobuf unescapes with a codec that warns of \s and the like
        try:
            return text_format.Merge(text, State())
        except (text_format.ParseError, UnicodeError):
            return None


paths = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
doubles = st.floats(allow_nan=False)


def state_of(parsed: Manifest):
    return State(
        model_checkpoint_path=parsed.model_checkpoint_path,
        all_model_checkpoint_paths=parsed.all_model_checkpoint_paths,
        all_model_checkpoint_timestamps=parsed.all_model_checkpoint_timestamps,
        last_preserved_timestamp=parsed.last_preserved_timestamp,
    )


@given(paths.filter(bool), st.lists(paths, max_size=4), st.lists(doubles, max_size=4), doubles)
@example("a", [], [], -0.0)
def test_what_is_written_is_what_protobuf_writes_and_reads_back_equal(newest, kept, times, last):
    """Any paths and times: the same bytes, and a round trip."""
    state = Manifest(newest, tuple(kept), tuple(times), last)

    data = encode_manifest(state)
    again = parse_manifest(data, "m")

    assert data.decode() == text_format.MessageToString(state_of(state))
    assert (again.model_checkpoint_path, again.all_model_checkpoint_paths) == (newest, tuple(kept))
    assert (again.all_model_checkpoint_timestamps, again.last_preserved_timestamp) == (tuple(times), last)
    assert {problem.code for problem in again.problems} <= {"manifest.timestamp-count"}


# Pieces of text format and of nonsense. Left out: what protobuf's Python unescaping gets wrong (an escaped backslash written
# as \u005c, \N{...}, a backslash before a character above 255) and surrogate pairs, which it refuses and C++ takes.
space = st.sampled_from(["", "", " ", "\n", "\t", " # note\n", "\r\n"])
escape = st.sampled_from(
    [r"\n", r"\t", r"\\", r"\"", r"\'", r"\a", r"\177", r"\0", r"\351", r"\303\251", r"\x41", r"\xe", r"\u20ac", r"\U0001F600",
     r"\s", r"\8", r"\777", r"\x", r"\u12", r"\ud800"]
)  # fmt: skip
body = st.lists(st.one_of(escape, st.text("ab/#{};é€😀", max_size=4)), max_size=4).map("".join)
string = st.builds(lambda quote, text: quote + text + quote, st.sampled_from("\"'"), body)
number = st.sampled_from(
    "0 1 -1 1.5 .5 5. 1e5 1E+5 1.5f 2F inf -inf nan Infinity inff 1e999 0x10 010 007.5 1_0 - + 1-2 5.5.5 +3 --3".split()
)
scalar = st.one_of(string, st.builds("{} {}".format, string, string), number, st.sampled_from(["true", "ab", "{", ""]))
items = st.lists(st.one_of(string, number), max_size=3).map(lambda parts: "[" + ", ".join(parts) + "]")
name = st.one_of(
    st.sampled_from(NAMES),
    st.sampled_from(["x", "[a.b]", "1", "Model_checkpoint_path", "", "model_checkpoint_path2"]),
)
field = st.builds(
    lambda *parts: "".join(parts),
    name, space, st.sampled_from([":", ":", ":", ":", ""]), space, st.one_of(scalar, scalar, items), space,
    st.sampled_from(["", "", "", ",", ";", ",,", "}"]), space,
)  # fmt: skip
good_escape = st.sampled_from(
    [r"\n", r"\\", r"\"", r"\'", r"\177", r"\0", r"\303\251", r"\x41", r"\xe", r"\u20ac", r"\s"]
)
good_string = st.builds(
    lambda quote, parts: quote + "".join(parts) + quote,
    st.sampled_from("\"'"), st.lists(st.one_of(good_escape, st.text("ab/#{};é€😀", max_size=4)), max_size=4),
)  # fmt: skip
good_number = st.sampled_from("0 1 -1 1.5 .5 5. 1e5 1E+5 1.5f 2F inf -inf nan Infinity inff 1e999 1_0 +3".split())
separator = st.sampled_from(["", " ", "\n", ",", ";", " # c\n"])


def listed(value):
    return st.one_of(value, st.lists(value, max_size=3).map(lambda parts: "[" + ", ".join(parts) + "]"))


joined = st.lists(good_string, min_size=1, max_size=3).map(" ".join)
good_field = st.one_of(
    st.builds("model_checkpoint_path:{} {}{}".format, space, joined, separator),
    st.builds("all_model_checkpoint_paths :{}{} {}".format, space, listed(joined), separator),
    st.builds("all_model_checkpoint_timestamps: {}{}\n{}".format, space, listed(good_number), separator),
    st.builds("last_preserved_timestamp:{}{} {}".format, space, good_number, separator),
)
soup = st.text("ab\"'\\#:;,[]{}<>0.-+ \n", max_size=20)


@settings(max_examples=400)
@given(
    st.one_of(
        st.lists(good_field, max_size=8).map("".join),
        st.tuples(st.lists(good_field, max_size=4).map("".join), st.one_of(field, soup)).map("".join),
        st.lists(st.one_of(field, field, soup), max_size=6).map("\n".join),
    )
)
@example('model_checkpoint_path: "a" all_model_checkpoint_paths: [] all_model_checkpoint_paths: ["b" \'c\']')
def test_every_text_reads_as_protobuf_reads_it(text):
    """Accepted there: the same values here, or no path. Refused there: refused here, or read with a warning."""
    expected = reference(text)
    try:
        parsed = parse_manifest(text.encode(), "m")
    except FormatError as error:
        allowed = {"manifest.no-model-path", "manifest.empty"}
        assert expected is None or (not expected.model_checkpoint_path and error.code in allowed)
        return
    warned = {p.code for p in parsed.problems} & {"manifest.unknown-field", "manifest.path-not-utf8"}
    if expected is None:
        assert warned
        return
    assert not warned
    assert parsed.model_checkpoint_path == expected.model_checkpoint_path
    assert list(parsed.all_model_checkpoint_paths) == list(expected.all_model_checkpoint_paths)
    assert len(parsed.all_model_checkpoint_timestamps) == len(expected.all_model_checkpoint_timestamps)
    for ours, theirs in zip(
        (*parsed.all_model_checkpoint_timestamps, parsed.last_preserved_timestamp),
        (*expected.all_model_checkpoint_timestamps, expected.last_preserved_timestamp),
        strict=True,
    ):
        assert ours == theirs or (math.isnan(ours) and math.isnan(theirs))


@given(st.binary(max_size=60))
def test_any_bytes_give_a_manifest_or_an_error_with_a_code(data):
    """Nothing but the project's own errors comes out."""
    try:
        assert parse_manifest(data, "m").model_checkpoint_path
    except FormatError as error:
        assert error.code.startswith("manifest.")


@pytest.mark.parametrize("cut", range(0, 140, 7))
def test_a_manifest_cut_anywhere_is_refused_or_a_prefix_of_the_whole(cut):
    """A half-written manifest never names a path that the whole one does not."""
    whole = Manifest("ckpt-2", ("ckpt-1", "ckpt-2"), (1.5, 2.5), 0.5)
    data = encode_manifest(whole)[:cut]
    try:
        parsed = parse_manifest(data, "m")
    except FormatError:
        return
    assert parsed.model_checkpoint_path == whole.model_checkpoint_path
    assert (
        whole.all_model_checkpoint_paths[: len(parsed.all_model_checkpoint_paths)] == parsed.all_model_checkpoint_paths
    )
