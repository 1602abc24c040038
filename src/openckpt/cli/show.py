"""``openckpt show``: the values of tensors, in numbers and in a picture. A shell over `CheckpointReader.read`."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

import click

from openckpt.cli import exits
from openckpt.cli.each import error_document, print_json, run_for_each, tensor_document
from openckpt.cli.progress import progress_bar
from openckpt.cli.reading import open_checkpoint
from openckpt.cli.settings import current_settings, general_options, json_option
from openckpt.cli.terminal import Screen
from openckpt.cli.text import count_text, pad, shape_text, shorten
from openckpt.errors import CheckpointError, UnsupportedError, Where, printable
from openckpt.formats.spec import GRAPH_KEY, VALUE_SUFFIX

if TYPE_CHECKING:
    from openckpt.cli.statistics import Histogram, Numbers, Statistics
    from openckpt.findings import Progress
    from openckpt.opening import CheckpointReader

_TEXT_COLUMNS = 2000
"""longest stretch of one string that is printed"""
_WORTH_A_PICTURE = 16
"""elements from which on a histogram is drawn"""


@click.command("show", short_help="Show values, statistics and a histogram of tensors.")
@click.argument("path", metavar="PATH")
@click.argument("keys", nargs=-1, required=True, metavar="KEY...")
@click.option("--npy", metavar="FILE", help="Write the value of the one KEY to FILE, for numpy.load.")
@click.option("--values", type=click.IntRange(min=0), default=10, show_default=True, metavar="N",
              help="Print this many values (of strings, and in JSON); numbers on a screen are shown by their corners.")  # fmt: skip
@click.option("--no-verify", is_flag=True, help="Show values even if their checksum is wrong.")
@json_option
@general_options
def command(path: str, keys: tuple[str, ...], npy: str | None, values: int, no_verify: bool, as_json: bool) -> int:
    """Show tensors of a checkpoint: values, min, max, mean, standard deviation, NaN and Inf counts, and a histogram.

    KEY is a name as `openckpt ls` prints it, the path of a variable as `openckpt tree` draws it, or a pattern such as 'dense/*'
    for all names that match.
    """
    settings = current_settings()
    screen = Screen(settings)

    def work(path: str) -> int:
        with open_checkpoint(path, settings) as ckpt:
            names, missing = _resolve(ckpt, keys)
            if npy is not None and len(names) + len(missing) != 1:
                raise click.UsageError(f"--npy writes one tensor, {len(names)} match {' '.join(map(repr, keys))}")
            show = _Show(screen, ckpt, missing, npy, values, verify=not no_verify, as_json=as_json)
            code = run_for_each([*names, *missing], show.tensor, settings, as_json=False)
            if as_json:
                facts = {"path": path, "prefix": ckpt.prefix, "format": ckpt.format, "step": ckpt.step}
                print_json({**facts, "tensors": show.documents, "errors": show.errors})
            return code

    return run_for_each([path], work, settings, as_json=as_json)


class _Show:
    """Shows the tensors of one checkpoint one by one, and collects their JSON."""

    def __init__(
        self, screen: Screen, ckpt: CheckpointReader, missing: list[str], npy: str | None, values: int,
        *, verify: bool, as_json: bool,
    ) -> None:  # fmt: skip
        self.screen, self.ckpt, self.missing, self.npy, self.values = screen, ckpt, missing, npy, values
        self.verify, self.as_json = verify, as_json
        self.documents: list[dict[str, object]] = []
        self.errors: list[dict[str, object]] = []

    def tensor(self, key: str) -> int:
        """Show one tensor and return the exit code; an error is kept for the JSON before it leaves."""
        try:
            self._show(key)
        except (CheckpointError, OSError) as error:
            self.errors.append(error_document(error, self.ckpt.prefix))
            raise
        return exits.YES

    def _show(self, key: str) -> None:
        if key in self.missing:
            self.ckpt.specs[key]  # raises, and the message names the nearest keys
        array = self.ckpt.read(key, verify=self.verify)
        if self.npy is not None:
            _write_npy(self.npy, self.ckpt, key, array)
            if not self.as_json:
                return
        with progress_bar() as (progress, _clear):
            described = _describe(array, progress)
        if self.as_json:
            self.documents.append(_document(self.ckpt, key, described, self.values))
        else:
            _print_tensor(self.screen, self.ckpt, key, array, described, self.values)


def _resolve(ckpt: CheckpointReader, keys: tuple[str, ...]) -> tuple[list[str], list[str]]:
    """Return the names that exist, in order and once each, and the arguments that nothing matches.

    A name is taken literally first, then as the path of a variable, as `openckpt tree` draws it, then as a pattern.
    """
    import re
    from fnmatch import translate

    found: dict[str, None] = {}
    missing: list[str] = []
    for key in keys:
        matches = [name for name in (key, key + VALUE_SUFFIX) if name in ckpt][:1]
        if not matches and any(char in key for char in "*?["):
            match = re.compile(translate(key)).match
            matches = [name for name in ckpt if match(name)]
        found.update(dict.fromkeys(matches))
        if not matches:
            missing.append(key)
    return list(found), missing


class _Described(NamedTuple):
    """What was computed of one tensor; the last two are None for strings and variants."""

    plain: Numbers
    statistics: Statistics | None
    histogram: Histogram | None


def _describe(array: Numbers, progress: Progress | None) -> _Described:
    from openckpt.cli.statistics import compute_histogram, compute_statistics, is_numeric, widen

    plain = widen(array)
    if not is_numeric(plain):
        return _Described(plain, None, None)
    statistics = compute_statistics(plain, progress)
    return _Described(plain, statistics, compute_histogram(plain, statistics, progress=progress))


# ---------------------------------------------------------------------------------------------------------- terminal


def _print_tensor(
    screen: Screen, ckpt: CheckpointReader, key: str, array: Numbers, described: _Described, values: int
) -> None:
    spec = ckpt.specs[key]
    stored = "" if spec.nbytes is None else f"  {count_text(spec.nbytes, 'byte')}"
    name, kind = printable(key), f"{spec.dtype} {shape_text(spec.shape)}"
    fits = screen.width is None or len(name) + 2 + len(kind) + len(stored) <= screen.width
    between = "  " if fits else "\n  "
    screen.line(f"{screen.style(name, 'bold')}{between}{kind}{screen.style(stored, 'dim')}")
    plain, statistics, histogram = described
    if statistics is None:
        screen.lines(_string_lines(screen, key, spec.dtype, array, values))
    else:
        if plain.ndim or not values:
            screen.paragraph("", _statistics_text(statistics, absolute=plain.dtype.kind == "c"), indent=2)
        # Fewer values than this are all printed below, and a picture of them says less.
        if histogram is not None and statistics.count >= _WORTH_A_PICTURE:
            screen.lines(_histogram_lines(screen, histogram, whole=plain.dtype.kind in "biu"))
        if values:
            screen.lines(_value_lines(screen, plain))
    screen.line()


def _number(value: float | int | None) -> str:
    return "-" if value is None else f"{value:,}" if isinstance(value, int) else f"{value:.6g}"


def _statistics_text(s: Statistics, *, absolute: bool) -> str:
    of = " of the absolute value" if absolute else ""
    if s.count == 0:
        return "no elements"
    return (
        f"min {_number(s.minimum)}  max {_number(s.maximum)}  mean {_number(s.mean)}  std {_number(s.std)}{of}"
        f"  nan {s.nan:,}  inf {s.inf:,}  zero {s.zeros:,}"
    )


def _histogram_lines(screen: Screen, histogram: Histogram, *, whole: bool) -> Iterator[str]:
    edges, counts = histogram.edges, histogram.counts
    single = whole and len(edges) > 1 and edges[1] - edges[0] == 1 and edges[0] % 1 == 0.5
    if single:
        labels = [f"{int(edge + 0.5):,}" for edge in edges[:-1]]
    else:
        marks = [f"{edge:.4g}" for edge in edges]
        widest = max(map(len, marks))
        labels = [f"{low:>{widest}} .. {high:>{widest}}" for low, high in pairwise(marks)]
    label_width = max(map(len, labels))
    numbers = [f"{count:,}" for count in counts]
    room = max(8, (screen.width or 80) - label_width - max(map(len, numbers)) - 6)
    most = max(counts) or 1
    for label, count, number in zip(labels, counts, numbers, strict=True):
        bar = screen.style(_bar(count / most, room, fine=screen.draws_lines), "key")
        yield f"  {label:>{label_width}} {bar} {number}" if count else f"  {label:>{label_width}} 0"


def _bar(part: float, room: int, *, fine: bool) -> str:
    if not fine:
        return "#" * max(1, round(part * room))
    eighths = max(1, round(part * room * 8))
    return "█" * (eighths // 8) + " ▏▎▍▌▋▊▉"[eighths % 8].strip()


def _value_lines(screen: Screen, array: Numbers) -> Iterator[str]:
    import numpy as np

    if array.size == 0:
        return
    text = np.array2string(array, threshold=60, edgeitems=3, max_line_width=max(20, (screen.width or 100) - 2))
    for line in text.splitlines():
        yield f"  {line}"


def _string_lines(screen: Screen, key: str, dtype: str, array: Numbers, values: int) -> Iterator[str]:
    elements: list[bytes] = array.reshape(-1).tolist()
    lengths = [len(element) for element in elements]
    if not elements:
        yield "  no elements"
    elif len(elements) == 1:
        yield f"  {count_text(lengths[0], 'byte')}"
    else:
        yield f"  {count_text(len(elements), 'element')} of {min(lengths):,} to {count_text(max(lengths), 'byte')}"
    if key == GRAPH_KEY:
        yield f"  {screen.style('the object graph; see it with: openckpt tree', 'dim')}"
        return
    limit = _TEXT_COLUMNS if screen.width is None else max(20, screen.width - 8)
    for number, element in enumerate(elements[:values]):
        text: str = _readable(element) if dtype == "string" else _hex(element)
        yield f"  {pad(str(number), 4)}{shorten(text, limit, screen.ellipsis)}"
    if len(elements) > values:
        yield f"  ... {len(elements) - values:,} more; --values N shows more"


def _hex(element: bytes) -> str:
    return element[:32].hex(" ") + (" ..." if len(element) > 32 else "")


def _readable(element: bytes) -> str:
    """Return a string element as people read it: text where it is UTF-8, every odd byte escaped."""
    cut = element[: 4 * _TEXT_COLUMNS]
    return printable(cut.decode("utf-8", "backslashreplace"))


# -------------------------------------------------------------------------------------------------------------- JSON


def _document(ckpt: CheckpointReader, key: str, described: _Described, values: int) -> dict[str, object]:
    document = {
        **tensor_document(key, ckpt.specs[key]),
        "statistics": None,
        "histogram": None,
        "values": [_json_value(value) for value in described.plain.reshape(-1)[:values].tolist()],
    }
    s, histogram = described.statistics, described.histogram
    if s is not None:
        document["statistics"] = {
            "count": s.count, "nan": s.nan, "inf": s.inf, "zeros": s.zeros,
            "min": s.minimum, "max": s.maximum, "mean": _json_value(s.mean), "std": _json_value(s.std),
        }  # fmt: skip
    if histogram is not None:
        document["histogram"] = {"edges": list(histogram.edges), "counts": list(histogram.counts)}
    return document


def _json_value(value: object) -> object:
    """Return a JSON form: non-finite numbers as "nan", "inf", "-inf", complex as [re, im], odd bytes as base64."""
    import math

    if isinstance(value, complex):
        return [_json_value(value.real), _json_value(value.imag)]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, bytes):
        try:
            return value.decode("utf-8")
        except UnicodeDecodeError:
            from base64 import b64encode

            return {"base64": b64encode(value).decode("ascii")}
    return value


# --------------------------------------------------------------------------------------------------------------- npy


def _write_npy(target: str, ckpt: CheckpointReader, key: str, array: Numbers) -> None:
    import numpy as np

    from openckpt.cli.statistics import is_numeric, widen
    from openckpt.storage.writing import replace_file

    plain = widen(array)
    if not is_numeric(plain):
        raise UnsupportedError(
            "spec.no-npy",
            Where(ckpt.prefix, key),
            f"a tensor of type {ckpt.specs[key].dtype} has no form in a .npy file",
        )
    try:
        with replace_file(target) as file:
            np.lib.format.write_array(file, plain, allow_pickle=False)
    except OSError as error:  # which names the temporary file, of which nobody has heard
        raise OSError(error.errno, error.strerror, target) from None
    note = "" if plain is array else f" (stored as {ckpt.specs[key].dtype}; every value is exact)"
    click.echo(f"openckpt: wrote {plain.dtype.name} {shape_text(plain.shape)} to {printable(target)}{note}", err=True)
