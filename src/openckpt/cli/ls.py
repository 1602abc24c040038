"""``openckpt ls``: the keys of a checkpoint with dtype, shape and bytes. A shell over `openckpt.open`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, NamedTuple

import click

from openckpt.cli import exits
from openckpt.cli.each import print_json_with, run_for_each, tensor_document
from openckpt.cli.reading import open_checkpoint, print_heading, reported
from openckpt.cli.settings import current_settings, general_options, json_option, paths_argument
from openckpt.cli.terminal import Screen
from openckpt.cli.text import abbreviate_key, count_text, pad, shape_text, shorten
from openckpt.errors import printable, size_text
from openckpt.formats.names import parse_shard_name

if TYPE_CHECKING:
    from openckpt.formats.spec import TensorSpec
    from openckpt.opening import CheckpointReader


class Row(NamedTuple):
    """One tensor of the listing."""

    key: str
    spec: TensorSpec
    shards: tuple[int, ...]


_SORTS: dict[str, Callable[[Row], object]] = {
    "key": lambda row: row.key,
    "bytes": lambda row: -1 if row.spec.nbytes is None else row.spec.nbytes,
    "dtype": lambda row: row.spec.dtype,
    "shape": lambda row: (-1,) if row.spec.shape is None else row.spec.shape,
    "shard": lambda row: row.shards,
}


@click.command("ls", short_help="List keys, dtypes, shapes and bytes.")
@paths_argument
@click.option("-g", "--glob", "globs", multiple=True, metavar="PATTERN",
              help="Only keys that match this pattern (`*` crosses `/`); may be repeated, one match is enough.")  # fmt: skip
@click.option("-r", "--regex", "regexes", multiple=True, metavar="REGEX",
              help="Only keys in which this regular expression is found; may be repeated, one match is enough.")  # fmt: skip
@click.option("--sort", type=click.Choice(list(_SORTS)), help="Sort by this column; without it, the order of the file.")
@click.option("--reverse", is_flag=True, help="Last first.")
@json_option
@general_options
def command(
    paths: tuple[str, ...],
    globs: tuple[str, ...],
    regexes: tuple[str, ...],
    sort: str | None,
    reverse: bool,
    as_json: bool,
) -> int:
    """List the tensors of a checkpoint: key, dtype, shape, bytes and shard, and their totals.

    Nothing but the index is read. Bytes are those stored; null in JSON where the format does not say.
    """
    settings = current_settings()
    wanted = _key_filter(globs, regexes)
    screen = Screen(settings)

    def work(path: str) -> int:
        with open_checkpoint(path, settings) as ckpt:
            rows = _rows(ckpt, wanted, with_shards=not as_json or sort == "shard")
            if sort is not None:
                rows.sort(key=_SORTS[sort])  # type: ignore[arg-type]
            if reverse:
                rows.reverse()
            if as_json:
                _print_document(path, ckpt, rows)
            else:
                _print_table(screen, ckpt, rows, several=len(paths) > 1)
            return exits.YES if rows or wanted is None else exits.NO

    return run_for_each(paths, work, settings, as_json=as_json)


def _key_filter(globs: Iterable[str], regexes: Iterable[str]) -> Callable[[str], bool] | None:
    import re
    from fnmatch import translate

    patterns = [re.compile(translate(glob)).match for glob in globs]
    for regex in regexes:
        try:
            patterns.append(re.compile(regex).search)
        except re.error as error:
            raise click.BadParameter(f"{regex!r} is no regular expression: {error}", param_hint="--regex") from None
    if not patterns:
        return None
    return lambda key: any(match(key) for match in patterns)


def _rows(ckpt: CheckpointReader, wanted: Callable[[str], bool] | None, *, with_shards: bool) -> list[Row]:
    shards_of = _shard_finder(ckpt) if with_shards else lambda _key: ()
    items = reported(ckpt.specs.items(), "list", len(ckpt))
    return [Row(key, spec, shards_of(key)) for key, spec in items if wanted is None or wanted(key)]


def _shard_finder(ckpt: CheckpointReader) -> Callable[[str], tuple[int, ...]]:
    """Return what tells the shards of a key; where there is but one shard no entry needs to be looked up."""
    if ckpt.format == "bundle-v2":
        parts = [part for part in map(parse_shard_name, ckpt.files) if part is not None]
        if parts and all(count == 1 for _, _, count in parts):
            return lambda _key: (0,)
    return lambda key: tuple(sorted({extent.shard for extent in ckpt.locate(key)}))


def _print_document(path: str, ckpt: CheckpointReader, rows: list[Row]) -> None:
    head = {"path": path, "prefix": ckpt.prefix, "format": ckpt.format, "step": ckpt.step}
    print_json_with(head, "tensors", (tensor_document(row.key, row.spec) for row in rows))


def _print_table(screen: Screen, ckpt: CheckpointReader, rows: list[Row], *, several: bool) -> None:
    print_heading(screen, ckpt)
    screen.lines(_table_lines(screen, rows))
    total = sum(row.spec.nbytes or 0 for row in rows)
    parameters = sum(row.spec.size for row in rows)
    of = "" if len(rows) == len(ckpt) else f" of {len(ckpt):,}"
    summary = f"{len(rows):,}{of} {'tensor' if len(ckpt) == 1 else 'tensors'}"
    summary += f", {count_text(parameters, 'element')}, {size_text(total)}"
    screen.line(screen.style(summary, "bold"))
    if several:
        screen.line()


def _table_lines(screen: Screen, rows: list[Row]) -> Iterator[str]:
    """Yield header and rows; on a terminal the key column is cut so that a row fits one line."""
    if not rows:
        return
    # A million rows are formatted as they are printed: kept as text they would take many times the memory of the index.
    specs = {spec: _spec_cells(spec) for spec in {row.spec for row in rows}}
    places = {shards: ",".join(map(str, shards)) or "-" for shards in {row.shards for row in rows}}
    head = ("key", "dtype", "shape", "bytes", "shard")
    rest = [max(len(head[number + 1]), max(len(cell[number]) for cell in specs.values())) for number in range(3)]
    rest.append(max(len(head[4]), max(map(len, places.values()))))
    key_width = max(len(head[0]), max(len(printable(row.key)) for row in rows))
    room = None if screen.width is None else max(12, screen.width - sum(rest) - 2 * len(rest))
    short = room is not None and key_width > room
    if room is not None and short:
        # All keys or none: a listing in which some are abbreviated reads like one of different tensors.
        key_width = max(len(abbreviate_key(printable(row.key), screen.ellipsis)) for row in rows)
        key_width = min(max(len(head[0]), key_width), room)
    row_of = f"{{}}  {{:<{rest[0]}}}  {{:<{rest[1]}}}  {{:>{rest[2]}}}  {{:>{rest[3]}}}".format
    yield screen.style(row_of(pad(head[0], key_width), *head[1:]), "dim")
    for row in rows:
        key = abbreviate_key(printable(row.key), screen.ellipsis) if short else printable(row.key)
        if not key.isascii() or len(key) > key_width:
            key = pad(shorten(key, key_width, screen.ellipsis), key_width)
        yield row_of(key.ljust(key_width), *specs[row.spec], places[row.shards])


def _spec_cells(spec: TensorSpec) -> tuple[str, str, str]:
    return spec.dtype, shape_text(spec.shape), "-" if spec.nbytes is None else f"{spec.nbytes:,}"
