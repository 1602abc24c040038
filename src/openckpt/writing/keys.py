"""Keys and prefixes that are about to be written."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import TypeVar

from openckpt.errors import CheckpointError, UnsupportedError, Where
from openckpt.formats.slicekeys import is_slice_key, parse_slice_key
from openckpt.limits import DEFAULT_LIMITS
from openckpt.storage.local import LocalStore
from openckpt.storage.writable import WritableStore

T = TypeVar("T")


def encode_key(key: str | bytes, path: str) -> bytes:
    """Return a key as the index holds it: text as UTF-8, bytes that were never text as they were (``surrogateescape``).

    Raises:
        UnsupportedError: the empty key, which is the header's, one longer than readers take, one that readers would take for
            a piece of another tensor, or neither text nor bytes (``writing.key``).
    """
    if not isinstance(key, (str, bytes)):
        raise UnsupportedError(
            "writing.key",
            Where(path, repr(key)[:60]),
            f"a key is text or bytes, this one is of type {type(key).__name__}",
        )
    try:
        raw = key.encode("utf-8", "surrogateescape") if isinstance(key, str) else key
    except UnicodeEncodeError as error:
        raise UnsupportedError("writing.key", Where(path, repr(key)), f"the key is no text: {error}") from None
    if not raw:
        raise UnsupportedError("writing.key", path, "a tensor has the empty key, which is that of the header")
    if len(raw) > DEFAULT_LIMITS.key_bytes:
        raise UnsupportedError(
            "writing.key",
            Where(path, decode_key(raw[:60]) + "..."),
            "the key is too long",
            expected=f"at most {DEFAULT_LIMITS.key_bytes} bytes",
            found=f"{len(raw)}",
        )
    if is_slice_key(raw) and _names_a_piece(raw):
        raise UnsupportedError(
            "writing.key",
            Where(path, decode_key(raw)),
            "readers would take this for the key of a piece of another tensor",
        )
    return raw


def _names_a_piece(raw: bytes) -> bool:
    try:
        parse_slice_key(raw)
    except CheckpointError:
        return False
    return True


def encode_keys(keys: Iterable[str], path: str) -> list[bytes]:
    """Return what `encode_key` gives for each of many keys."""
    try:
        raws = [key.encode() for key in keys]
    except (UnicodeEncodeError, AttributeError):
        return [encode_key(key, path) for key in keys]
    if raws and (min(raws) < b"\x01" or max(map(len, raws)) > DEFAULT_LIMITS.key_bytes):
        return [encode_key(key, path) for key in keys]  # looks closer, and names the key it refuses
    return raws


def with_text_keys(values: Mapping[str, T], path: str) -> Mapping[str, T]:
    """Return a mapping under its keys as a reader gives them back: bytes as text, and surrogates only where bytes are no text.

    Raises:
        UnsupportedError: as `encode_key`; two keys are the same bytes (``writing.duplicate-key``).
    """
    try:
        "".join(values).encode()
    except (TypeError, UnicodeEncodeError):
        pass
    else:
        return values  # nearly always
    found: dict[str, T] = {}
    for key, value in values.items():
        text = decode_key(encode_key(key, path))
        if text in found:
            raise UnsupportedError(
                "writing.duplicate-key", Where(path, text), "two tensors have this key, once encoded"
            )
        found[text] = value
    return found


def decode_key(raw: bytes) -> str:
    """Return a stored key as text; the inverse of `encode_key`."""
    return raw.decode("utf-8", "surrogateescape")


def split_prefix(store: WritableStore, prefix: str) -> tuple[str, str]:
    """Return ``(directory, stem)`` of a prefix.

    Raises:
        UnsupportedError: it has no last part to name files after, or is a URL (``writing.prefix``).
    """
    refuse_url(store, prefix)
    directory, stem = store.split(prefix)
    if stem in ("", ".", "..") or "\0" in prefix:
        raise UnsupportedError(
            "writing.prefix", prefix or ".", "this is no prefix: it does not say what to call the files"
        )
    return directory, stem


_PATH_OF_URL = re.compile(r"(s3|gs|gcs|az|abfss?|adl|r2|oss|hdfs|hf|https?)://?")
"""what `pathlib` makes of a URL: one slash of the two"""


def refuse_url(store: WritableStore, path: str, *, code: str = "writing.prefix") -> None:
    """Raise UnsupportedError where a path on the local disk is a URL."""
    scheme = re.match(r"[A-Za-z][A-Za-z0-9+.-]+://", path) or _PATH_OF_URL.match(path)
    if scheme is not None and isinstance(store, LocalStore):
        # As a path it would be a directory "s3:" on the disk of a machine that may be gone tomorrow.
        message = f"this is a URL ({scheme[0]}), and openckpt writes to the disks of this machine"
        fix = "write to a directory, then copy it with the tool of that place (aws s3 cp --recursive, gsutil cp -r)"
        raise UnsupportedError(code, path, message, fix=fix)
