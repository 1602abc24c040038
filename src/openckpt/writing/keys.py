"""Keys and prefixes that are about to be written."""

from __future__ import annotations

from collections.abc import Iterable

from openckpt.errors import UnsupportedError, Where
from openckpt.limits import DEFAULT_LIMITS
from openckpt.storage.writable import WritableStore


def encode_key(key: str | bytes, path: str) -> bytes:
    """Return a key as the index holds it: text as UTF-8, bytes that were never text as they were (``surrogateescape``).

    Raises:
        UnsupportedError: the empty key, which is the header's, or one longer than readers take (``writing.key``).
    """
    try:
        raw = key.encode("utf-8", "surrogateescape") if isinstance(key, str) else bytes(key)
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
    return raw


def encode_keys(keys: Iterable[str], path: str) -> list[bytes]:
    """Return what `encode_key` gives for each of many keys."""
    try:
        raws = [key.encode() for key in keys]
    except (UnicodeEncodeError, AttributeError):
        return [encode_key(key, path) for key in keys]
    lengths = list(map(len, raws))
    if lengths and (min(lengths) == 0 or max(lengths) > DEFAULT_LIMITS.key_bytes):
        return [encode_key(key, path) for key in keys]  # raises, and names the key
    return raws


def decode_key(raw: bytes) -> str:
    """Return a stored key as text; the inverse of `encode_key`."""
    return raw.decode("utf-8", "surrogateescape")


def split_prefix(store: WritableStore, prefix: str) -> tuple[str, str]:
    """Return ``(directory, stem)`` of a prefix.

    Raises:
        UnsupportedError: it has no last part to name files after (``writing.prefix``).
    """
    directory, stem = store.split(prefix)
    if stem in ("", ".", "..") or "\0" in prefix:
        raise UnsupportedError(
            "writing.prefix", prefix or ".", "this is no prefix: it does not say what to call the files"
        )
    return directory, stem
