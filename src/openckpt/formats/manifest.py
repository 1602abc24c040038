r"""The manifest: the text file named ``checkpoint`` that says which checkpoints a directory keeps (formats 4).

    model_checkpoint_path: "ckpt-8"                          the newest checkpoint
    all_model_checkpoint_paths: "ckpt-7"                     those that are kept, oldest first
    all_model_checkpoint_paths: "ckpt-8"
    all_model_checkpoint_timestamps: 1795153856.773191       seconds since 1970, one per kept checkpoint
    all_model_checkpoint_timestamps: 1795153856.7752366
    last_preserved_timestamp: 1795153855.7693934

It is the message CheckpointState in protobuf text format. `parse_manifest` takes all of that format, keeps going over fields
that it does not know (TensorFlow then ignores the whole file, hence a finding), and never looks at a disk: entries are data
until `openckpt.opening` looks for them inside the manifest's directory. Finding the newest checkpoint reads a manifest first, so nothing heavy is imported.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from openckpt.errors import CorruptionError, Where, place_of
from openckpt.formats.textproto import TextReader, TextSyntaxError, line_and_column, quote
from openckpt.limits import DEFAULT_LIMITS, Limits

if TYPE_CHECKING:
    from collections.abc import Iterator

    from openckpt.findings import Finding


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a manifest says. Paths are as written; bytes in them that are not UTF-8 are surrogates (``surrogateescape``).

    Attributes:
        model_checkpoint_path: the newest checkpoint; never empty after `parse_manifest`.
        all_model_checkpoint_paths: those kept, oldest first.
        all_model_checkpoint_timestamps: seconds since 1970, parallel to the paths, or empty.
        last_preserved_timestamp: seconds since 1970; 0.0 where not written.
        problems: what was odd about the text, with line and column.
    """

    model_checkpoint_path: str
    all_model_checkpoint_paths: tuple[str, ...] = ()
    all_model_checkpoint_timestamps: tuple[float, ...] = ()
    last_preserved_timestamp: float = 0.0
    problems: tuple[Finding, ...] = ()


def parse_manifest(data: bytes, where: Where | str, limits: Limits = DEFAULT_LIMITS) -> Manifest:
    """Parse the bytes of a manifest (formats 4.1, 4.3).

    Raises:
        CorruptionError: ``manifest.empty``, ``manifest.not-utf8``, ``manifest.lfs-pointer``, ``manifest.not-a-manifest``
            (another kind of file), ``manifest.bad-syntax`` (with line and column), ``manifest.no-model-path``.
        LimitError: larger than ``limits.manifest_bytes``.
    """
    place = place_of(where)
    limits.check("manifest_bytes", len(data), place, "the manifest's size")
    if not data:
        raise CorruptionError("manifest.empty", place, "the manifest is empty")
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise CorruptionError(
            "manifest.not-utf8",
            Where(place.path, offset=error.start),
            "the manifest holds binary data",
            found=f"byte {data[error.start]:02x} in {_describe(data)}",
        ) from None
    if text.startswith("version") and "git-lfs" in text.partition("\n")[0]:
        raise CorruptionError("manifest.lfs-pointer", place, "the manifest is a git-lfs pointer", found=_describe(data))
    return _parse_plain(text) or _Parse(text, place).run()


# What TensorFlow writes, in its order and without an escape: nearly every manifest there is. A search over ten thousand runs
# spends a fifth of its time on manifests without this.
_PLAIN = re.compile(
    r'model_checkpoint_path: "([^"\\\n]+)"\n'
    r'((?:all_model_checkpoint_paths: "[^"\\\n]*"\n)*)'
    r"((?:all_model_checkpoint_timestamps: \d+(?:\.\d+)?\n)*)"
    r"(?:last_preserved_timestamp: (\d+(?:\.\d+)?)\n)?",
    re.ASCII,
)


def _parse_plain(text: str) -> Manifest | None:
    """Return the manifest if it is of the plain form and nothing about it is odd, else None."""
    match = _PLAIN.fullmatch(text)
    if match is None:
        return None
    paths = match[2].split('"')[1::2]
    timestamps = [float(line.partition(" ")[2]) for line in match[3].splitlines()]
    if timestamps and len(timestamps) != len(paths):
        return None
    return Manifest(match[1], tuple(paths), tuple(timestamps), float(match[4] or 0))


class _Parse:
    """One run over one text: collects the fields and the problems."""

    def __init__(self, text: str, where: Where) -> None:
        self._text = text
        self._where = where
        self._model_path: str | None = None
        self._paths: list[str] = []
        self._timestamps: list[float] = []
        self._last_preserved: float | None = None
        self._problems: list[Finding] = []
        self._recognised = False

    def run(self) -> Manifest:
        text = self._text
        try:
            if text.startswith("\ufeff"):  # a text editor's mark; TensorFlow stumbles over it
                self._report("manifest.byte-order-mark", 0, "the manifest starts with a byte order mark")
                text = " " + text[1:]  # keeps every position
            reader = TextReader(text, odd_escapes=self._report_escape)
            while reader.kind != "end":
                self._field(reader)
        except TextSyntaxError as error:
            raise self._error(error) from None
        if not self._model_path:
            raise CorruptionError(
                "manifest.no-model-path",
                self._where,
                "the manifest names no newest checkpoint",
                expected='a line model_checkpoint_path: "..."',
                found=f"{len(self._paths)} other checkpoints listed",
            )
        if self._timestamps and len(self._timestamps) != len(self._paths):
            self._report(
                "manifest.timestamp-count",
                None,
                "the manifest has another number of timestamps than of checkpoints",
                expected=str(len(self._paths)),
                found=str(len(self._timestamps)),
            )
        return Manifest(
            self._model_path,
            tuple(self._paths),
            tuple(self._timestamps),
            self._last_preserved or 0.0,
            tuple(self._problems),
        )

    def _field(self, reader: TextReader) -> None:
        start = reader.pos
        name = reader.field_name()
        known = True
        if name == "model_checkpoint_path":
            reader.expect(":")
            self._note_repeated(name, start, self._model_path is not None)
            self._model_path = self._path(reader)
        elif name == "all_model_checkpoint_paths":
            reader.expect(":")
            for _ in _elements(reader):
                self._paths.append(self._path(reader))
        elif name == "all_model_checkpoint_timestamps":
            reader.expect(":")
            for _ in _elements(reader):
                self._timestamps.append(reader.double())
        elif name == "last_preserved_timestamp":
            reader.expect(":")
            self._note_repeated(name, start, self._last_preserved is not None)
            self._last_preserved = reader.double()
        else:
            reader.skip_value()
            self._report("manifest.unknown-field", start, f"the manifest has a field {name[:80]!r} that is not known")
            known = False
        self._recognised |= known
        reader.accept_separator()

    def _path(self, reader: TextReader) -> str:
        start = reader.pos
        raw = reader.string()
        try:
            return raw.decode()
        except UnicodeDecodeError:
            self._report("manifest.path-not-utf8", start, "a path in the manifest is not UTF-8")
            return raw.decode(errors="surrogateescape")

    def _note_repeated(self, name: str, pos: int, repeated: bool) -> None:
        if repeated:
            self._report("manifest.repeated-field", pos, f"the manifest has {name} more than once; the last one holds")

    def _report_escape(self, pos: int) -> None:
        self._report(
            "manifest.odd-escape", pos, f"{self._text[pos : pos + 2]!r} is no escape; both characters are kept"
        )

    def _report(
        self, code: str, pos: int | None, message: str, *, expected: str | None = None, found: str | None = None
    ) -> None:
        if len(self._problems) >= _MOST_PROBLEMS:
            return
        from openckpt.findings import make_finding

        if pos is not None:
            line, column = line_and_column(self._text, pos)
            message = f"line {line}, column {column}: {message}"
        self._problems.append(make_finding(code, self._place(pos), message, expected=expected, found=found))

    def _place(self, pos: int | None) -> Where:
        if pos is None:
            return self._where
        return Where(self._where.path, offset=len(self._text[:pos].encode()))

    def _error(self, error: TextSyntaxError) -> CorruptionError:
        place = self._place(error.pos)
        if not self._recognised:
            return CorruptionError(
                "manifest.not-a-manifest",
                place,
                "this is not a manifest",
                expected='lines such as model_checkpoint_path: "ckpt-7"',
                found=_describe(self._text.encode()),
            )
        line, column = line_and_column(self._text, error.pos)
        return CorruptionError("manifest.bad-syntax", place, f"line {line}, column {column}: {error}")


_MOST_PROBLEMS = 100  # a hostile manifest of unknown fields must not become a report of a gigabyte


def _elements(reader: TextReader) -> Iterator[None]:
    """Step to each element of ``[a, b]``, or to the one value that stands alone; the caller consumes it."""
    if not reader.accept("["):
        yield None
    elif not reader.accept("]"):
        yield None
        while not reader.accept("]"):
            reader.expect(",")
            yield None


def _describe(data: bytes) -> str:
    head = data[:32].decode("latin-1").encode("unicode_escape").decode()
    return f"{len(data)} bytes starting {head!r}"


def encode_manifest(manifest: Manifest) -> bytes:
    """Return the manifest as TensorFlow writes it, byte for byte (formats 4.1); problems are not written.

    Surrogates of bytes that are not UTF-8 become octal escapes, which every parser reads back as those bytes.
    """
    lines = []
    if manifest.model_checkpoint_path:
        lines.append(f"model_checkpoint_path: {quote(manifest.model_checkpoint_path)}\n")
    lines += [f"all_model_checkpoint_paths: {quote(path)}\n" for path in manifest.all_model_checkpoint_paths]
    lines += [f"all_model_checkpoint_timestamps: {time!r}\n" for time in manifest.all_model_checkpoint_timestamps]
    last = manifest.last_preserved_timestamp
    if last or str(last) == "-0.0":  # proto3 leaves out positive zero only
        lines.append(f"last_preserved_timestamp: {last!r}\n")
    return "".join(lines).encode()


# ------------------------------------------------------------------------------------------------------------- paths

_WINDOWS = re.compile(r"[A-Za-z]:[\\/]|\\\\")


def is_windows_entry(entry: str) -> bool:
    r"""Return whether an entry is an absolute Windows path: ``C:\run\ckpt-7``, ``C:/run/ckpt-7`` or ``\\host\share``."""
    return _WINDOWS.match(entry) is not None


def is_absolute_entry(entry: str) -> bool:
    """Return whether an entry is absolute, by the rules of POSIX or of Windows, or a URL such as ``gs://bucket/ckpt-7``."""
    return (
        entry.startswith("/") or is_windows_entry(entry) or re.match(r"[A-Za-z][A-Za-z0-9+.-]+://", entry) is not None
    )


def entry_name(entry: str) -> str:
    """Return the last part of an entry: what to look for in the manifest's own directory when its path leads elsewhere."""
    parts = re.split(r"[\\/]", entry) if is_windows_entry(entry) else entry.split("/")
    return parts[-1]
