"""The short way through a manifest that TensorFlow wrote gives what the whole parser gives."""

from __future__ import annotations

import pytest

from openckpt.errors import CheckpointError, Where
from openckpt.formats.manifest import Manifest, _Parse, _parse_plain, parse_manifest

PLAIN = (
    'model_checkpoint_path: "ckpt-8"\n'
    'all_model_checkpoint_paths: "ckpt-7"\n'
    'all_model_checkpoint_paths: "ckpt-8"\n'
    "all_model_checkpoint_timestamps: 1795153856.773191\n"
    "all_model_checkpoint_timestamps: 1795153857\n"
    "last_preserved_timestamp: 1795153855.7693934\n"
)


def test_what_tensorflow_writes_takes_the_short_way() -> None:
    """All four fields, in TensorFlow's order."""
    manifest = _parse_plain(PLAIN)
    assert manifest == Manifest("ckpt-8", ("ckpt-7", "ckpt-8"), (1795153856.773191, 1795153857.0), 1795153855.7693934)
    assert parse_manifest(PLAIN.encode(), "x") == manifest


@pytest.mark.parametrize(
    "insert", ['"', "\\", "\n", "\r", "'", "é", "\x85", "\u2028", "#", " ", "\t", "\0", "7", "e", ":"]
)
def test_every_change_of_a_character_gives_the_same_either_way(insert: str) -> None:
    """Wherever the short way answers, the whole parser answers the same."""
    for at in range(len(PLAIN)):
        for text in (PLAIN[:at] + insert + PLAIN[at:], PLAIN[:at] + insert + PLAIN[at + 1 :]):
            short = _parse_plain(text)
            if short is not None:
                try:
                    assert short == _Parse(text, Where("x")).run()
                except CheckpointError as error:
                    pytest.fail(f"{text!r} is refused by the whole parser: {error}")
