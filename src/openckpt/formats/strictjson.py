"""JSON from strangers: strict UTF-8, no duplicate names, no NaN, no lone surrogates, and only `FormatError` kinds come out.

The standard parser is fast and well kept, but lets through what a header must not say twice, and answers hostile text with
`RecursionError` (nesting) or a plain `ValueError` (an integer of more than 4,300 digits). Every such answer becomes one
`CorruptionError` with the caller's code.
"""

from __future__ import annotations

import json
import re
from typing import TypeAlias

from openckpt.errors import CorruptionError, Where, place_of
from openckpt.limits import no_memory

Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"

_SURROGATE_ESCAPE = re.compile(rb"\\u[dD][89a-fA-F]")


class _DuplicateName(ValueError):
    pass


def _unique(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
    names = dict(pairs)
    if len(names) != len(pairs):
        seen: set[str] = set()
        for name, _ in pairs:
            if name in seen:
                raise _DuplicateName(name)
            seen.add(name)
    return names


def _no_constant(name: str) -> Json:
    raise ValueError(f"the constant {name} is not JSON")


def parse_json(
    data: bytes | memoryview,
    where: Where | str,
    *,
    code: str,
    duplicate_code: str | None = None,
    offset: int = 0,
    surrogates: bool = False,
) -> Json:
    """Return the value that ``data`` spells.

    Args:
        data: the whole document, UTF-8.
        where: the place for errors.
        code: code of every complaint.
        duplicate_code: code for a name that occurs twice in one object; ``code`` when not given.
        offset: place of the document in its file, added to the offsets of errors.
        surrogates: allow halves of surrogate pairs, written as escapes: they stand for bytes that are not UTF-8.

    Raises:
        CorruptionError: not UTF-8, not JSON, nested too deeply, a number or a name that JSON does not have.
        LimitError: the values need more memory than there is.
    """
    place = place_of(where)

    def bad(message: str, at: int | None = None, which: str = code) -> CorruptionError:
        found = Where(place.path, place.key, None if at is None else offset + at)
        return CorruptionError(which, found, message)

    raw = bytes(data)
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise bad("the text is not UTF-8", error.start) from None
    try:
        value: Json = json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant)
    except _DuplicateName as error:
        raise bad(f"the name {str(error)!r} occurs twice in one object", None, duplicate_code or code) from None
    except json.JSONDecodeError as error:
        raise bad(f"not JSON: {error.msg}", len(text[: error.pos].encode("utf-8"))) from None
    except RecursionError:
        raise bad("the JSON is nested too deeply") from None
    except ValueError as error:
        # an integer of more digits than Python converts, or NaN
        raise bad(f"not JSON: {str(error).partition(';')[0]}") from None
    except MemoryError:
        raise no_memory(place, "this JSON") from None
    if not surrogates and _SURROGATE_ESCAPE.search(raw) and has_surrogate(value):
        raise bad("the text has half of a surrogate pair, which is no character")
    return value


def has_surrogate(value: Json) -> bool:
    """Return whether any string in ``value`` cannot be written as UTF-8."""
    pending = [value]
    while pending:
        item = pending.pop()
        if isinstance(item, str):
            try:
                item.encode("utf-8")
            except UnicodeEncodeError:
                return True
        elif isinstance(item, dict):
            pending.extend(item)
            pending.extend(item.values())
        elif isinstance(item, list):
            pending.extend(item)
    return False
