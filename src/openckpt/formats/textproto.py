r"""Protobuf text format: the tokens, strings, numbers and the skipping of what we do not know.

    field     := name [":"] value [ "," | ";" ]              name := identifier | number | "[" type name "]"
    value     := string+ | word | number | message | "[" [ value { "," value } ] "]"
    message   := "{" field* "}" | "<" field* ">"
    string    := '"' ... '"' | "'" ... "'"                   on one line; adjacent strings join
    escapes   := \n \r \t \a \b \f \v \" \' \\ | \ooo octal | \xhh | \uhhhh | \Uhhhhhhhh
    comment   := "#" to the end of the line

As TensorFlow's own reader (the Python text format) takes it, with one liberty: what it refuses as an unknown field can be
skipped here. Nothing recurses, so nesting is limited by the size of the text only. Used for manifests (formats 4.1) and to
look into ``.pbtxt`` files.
"""

from __future__ import annotations

import re
from collections.abc import Callable


class TextSyntaxError(ValueError):
    """The text is not text format; ``pos`` is the index of the character where it stops being so."""

    def __init__(self, message: str, pos: int) -> None:
        super().__init__(message)
        self.pos = pos


# Every repetition is possessive: hostile text cannot make the matcher try again.
_SPACE = re.compile(r"(?:\s++|#[^\n]*+)*+")
_TOKEN = re.compile(
    r"""(?P<word>[A-Za-z_][0-9A-Za-z_+-]*+)
      | (?P<number>(?:[0-9+-]|\.[0-9])[0-9A-Za-z_.+-]*+)
      | (?P<string>"(?:[^"\\\n]++|\\.)*+" | '(?:[^'\\\n]++|\\.)*+')
      | (?P<symbol>.)""",
    re.VERBOSE,
)
_ESCAPE = re.compile(r"\\(?:([0-7]{1,3})|x([0-9A-Fa-f]{1,2})|u([0-9A-Fa-f]{4})|U([0-9A-Fa-f]{8})|(.))")
_SIMPLE = {"n": b"\n", "r": b"\r", "t": b"\t", "a": b"\a", "b": b"\b", "f": b"\f", "v": b"\v"} | {
    c: c.encode() for c in "\"'\\"
}
_INTEGER = re.compile(r"-?(?:0[xX][0-9a-fA-F]+|0[0-7]*|[1-9][0-9]*)")
_SHOWN = 40  # characters of a token that a message repeats


class TextReader:
    """A cursor over the tokens of one text.

    Attributes:
        kind: ``word``, ``number``, ``string``, ``symbol`` or ``end``.
        text: the token as written.
        pos: index of its first character.
        odd_escapes: called with the position of an escape that text format does not have, such as the ``\\s`` of an
            unescaped Windows path; both characters are kept, as TensorFlow does.
    """

    __slots__ = ("_end", "_text", "kind", "odd_escapes", "pos", "text")

    def __init__(self, text: str, odd_escapes: Callable[[int], None] | None = None) -> None:
        self._text = text
        self._end = 0
        self.kind = ""
        self.text = ""
        self.pos = 0
        self.odd_escapes = odd_escapes
        self.advance()

    def advance(self) -> None:
        """Go on to the next token."""
        skipped = _SPACE.match(self._text, self._end)
        assert skipped is not None  # it matches the empty string too
        self.pos = skipped.end()
        match = _TOKEN.match(self._text, self.pos)
        if match is None:
            self.kind, self.text, self._end = "end", "", self.pos
        else:
            self.kind, self.text, self._end = match.lastgroup or "", match[0], match.end()

    def fail(self, expected: str) -> TextSyntaxError:
        """Make the error that something else was expected here."""
        found = "the end of the file" if self.kind == "end" else repr(self.text[:_SHOWN])
        if self.kind == "symbol" and self.text in "\"'":
            found = "a string without its closing quote"
        return TextSyntaxError(f"expected {expected}, found {found}", self.pos)

    def accept(self, symbol: str) -> bool:
        """Consume ``symbol`` if it is next; tell whether it was."""
        if self.kind == "symbol" and self.text == symbol:
            self.advance()
            return True
        return False

    def expect(self, symbol: str) -> None:
        """Consume ``symbol``."""
        if not self.accept(symbol):
            raise self.fail(repr(symbol))

    def accept_separator(self) -> None:
        """Consume the one comma or semicolon that may follow a field."""
        if not self.accept(","):
            self.accept(";")

    def field_name(self) -> str:
        """Consume and return the name of a field; ``[pkg.extension]`` and ``[type/url]`` come with their brackets."""
        if self.accept("["):
            parts = ["["]
            while not self.accept("]"):
                if self.kind in ("end", "string"):
                    raise self.fail("']'")
                parts.append(self.text)
                self.advance()
            return "".join((*parts, "]"))
        if self.kind != "word" and not (self.kind == "number" and self.text[0].isdigit()):
            raise self.fail("the name of a field")
        name = self.text
        self.advance()
        return name

    def string(self) -> bytes:
        """Consume one or more adjacent strings and return their bytes, escapes resolved."""
        if self.kind != "string":
            raise self.fail("a string in quotes")
        parts = []
        while self.kind == "string":
            parts.append(self._unescape(self.text[1:-1]))
            self.advance()
        return b"".join(parts)

    def _unescape(self, body: str) -> bytes:
        if "\\" not in body:
            return _utf8(body, self.pos)
        parts: list[bytes] = []
        done, high = 0, 0  # high: the first half of a surrogate pair, waiting for the second
        for match in _ESCAPE.finditer(body):
            pos = self.pos + 1 + match.start()
            if done != match.start():
                parts.append(_utf8(body[done : match.start()], self.pos))
            if high and (done != match.start() or match[3] is None):
                raise TextSyntaxError("half of a surrogate pair", pos)
            done = match.end()
            octal, hexadecimal, short, long, single = match.groups()
            if octal or hexadecimal:
                value = int(octal, 8) if octal else int(hexadecimal, 16)
                if value > 255:
                    raise TextSyntaxError(f"the escape {match[0]} is larger than a byte", pos)
                parts.append(bytes((value,)))
            elif short or long:
                value = int(short or long, 16)
                if high and 0xDC00 <= value < 0xE000:
                    value, high = 0x10000 + ((high - 0xD800) << 10) + (value - 0xDC00), 0
                elif short and not high and 0xD800 <= value < 0xDC00:
                    high = value
                    continue
                if value > 0x10FFFF or 0xD800 <= value < 0xE000 or high:
                    raise TextSyntaxError(f"the escape {match[0]} is no character", pos)
                parts.append(chr(value).encode())
            elif single in _SIMPLE:
                parts.append(_SIMPLE[single])
            elif single in "xuU":
                raise TextSyntaxError(f"the escape \\{single} lacks its digits", pos)
            else:
                if self.odd_escapes is not None:
                    self.odd_escapes(pos)
                parts.append(_utf8(match[0], self.pos))
        if high:
            raise TextSyntaxError("half of a surrogate pair", self.pos)
        parts.append(_utf8(body[done:], self.pos))
        return b"".join(parts)

    def double(self) -> float:
        """Consume and return a floating-point number, in the spellings that TensorFlow's reader takes."""
        text = self.text
        if self.kind not in ("word", "number") or re.match(r"-?0[0-9]", text):  # no octal doubles
            raise self.fail("a number")
        for spelling in (text, text[:-1] if text[-1] in "fF" else "", text.rstrip("fF")):
            try:
                value = float(spelling)
            except ValueError:
                continue
            break
        else:
            raise self.fail("a number")
        self.advance()
        return value

    def skip_value(self) -> None:
        """Consume what follows a field's name, whatever it is, up to its separator."""
        closers: list[str] = []  # the brackets that are open, by what closes them
        self._skip_into(closers)
        while closers:
            closer = closers[-1]
            if closer == "]" and not self.accept("]"):
                self.expect(",")
                self._skip_element(closers)
            elif closer != "]" and not (self.kind == "symbol" and self.text in "}>"):
                self.field_name()
                self._skip_into(closers)
            else:
                if closer != "]":
                    self.expect(closer)
                closers.pop()
                if closers and closers[-1] != "]":
                    self.accept_separator()

    def _skip_into(self, closers: list[str]) -> None:
        colon = self.accept(":")
        if colon and self.accept("["):
            if not self.accept("]"):
                closers.append("]")
                self._skip_element(closers)
                return
        elif self._skip_open(closers):
            return
        elif colon:
            self._skip_scalar()
        else:
            raise self.fail("':' or '{'")
        if closers:
            self.accept_separator()

    def _skip_element(self, closers: list[str]) -> None:
        if not self._skip_open(closers):
            self._skip_scalar()

    def _skip_open(self, closers: list[str]) -> bool:
        for opener, closer in (("{", "}"), ("<", ">")):
            if self.accept(opener):
                closers.append(closer)
                return True
        return False

    def _skip_scalar(self) -> None:
        if self.kind == "string":
            self.string()
        elif self.kind == "word" or (self.kind == "number" and _INTEGER.fullmatch(self.text)):
            self.advance()
        else:
            self.double()


def _utf8(text: str, pos: int) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:  # cannot come from decoded UTF-8, only from a caller's own str
        raise TextSyntaxError("half of a surrogate pair", pos) from None


def line_and_column(text: str, pos: int) -> tuple[int, int]:
    """Return the line and column of a character, both counted from 1."""
    return text.count("\n", 0, pos) + 1, pos - text.rfind("\n", 0, pos)


_OUT = {code: f"\\{code:03o}" for code in (*range(32), 127)} | {
    9: "\\t", 10: "\\n", 13: "\\r", 34: '\\"', 39: "\\'", 92: "\\\\",
}  # fmt: skip


def quote(text: str) -> str:
    """Return ``text`` in double quotes, escaped as TensorFlow writes it; lone surrogates become octal escapes of their byte."""
    return (
        '"'
        + "".join(f"\\{ord(c) - 0xDC00:03o}" if "\udc80" <= c <= "\udcff" else c for c in text.translate(_OUT))
        + '"'
    )
