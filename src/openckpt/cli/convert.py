"""``openckpt convert``: a checkpoint in another format. A shell over `openckpt.convert`."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, cast

import click

from openckpt.cli import exits
from openckpt.cli.each import error_document, print_json
from openckpt.cli.progress import progress_bar
from openckpt.cli.settings import current_settings, general_options
from openckpt.cli.terminal import Screen, report_error
from openckpt.cli.text import count_text, names_text
from openckpt.errors import CheckpointError, ConflictError, printable, size_text
from openckpt.limits import MIB

if TYPE_CHECKING:
    from openckpt.conversion import Conversion
    from openckpt.conversion.result import TargetFormat
    from openckpt.storage.writable import Durability

_FORMATS = ("dual", "tensorflow", "safetensors", "hdf5", "npz")
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kMGT]i?B?|B)?", re.IGNORECASE)
_USAGE = frozenset(("convert.target", "convert.cast"))
"""codes of what is wrong with the command line, not with a file"""


class Size(click.ParamType[int]):
    """A number of bytes with a unit: 5GB (decimal), 512MiB (binary), 4096."""

    name = "size"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return the bytes."""
        if isinstance(value, int):
            return value
        match = _SIZE.fullmatch(str(value).strip())
        if match is None:
            self.fail(f"{value!r} is no size; write 5GB, 512MiB or a number of bytes", param, ctx)
        unit = (match[2] or "B").lower()
        power = "bkmgt".index(unit[0])
        return int(float(match[1]) * (1024 if "i" in unit else 1000) ** power)


@click.command("convert", short_help="Write a checkpoint in another format.")
@click.argument("source", metavar="SRC")
@click.argument("target", metavar="DST")
@click.option(
    "--to", type=click.Choice(_FORMATS), help="What to write; without it, the suffix of DST decides, else dual."
)
@click.option("--cast", "casts", multiple=True, metavar="[FROM=]TO",
              help="Cast one type, or all floats: float32=bfloat16, bfloat16; may be repeated.")  # fmt: skip
@click.option("--include", multiple=True, metavar="PATTERN",
              help="Only keys that match this pattern (`*` crosses `/`); may be repeated, one match is enough.")  # fmt: skip
@click.option("--exclude", multiple=True, metavar="PATTERN", help="No keys that match this pattern; may be repeated.")
@click.option("--max-shard-size", type=Size(), metavar="SIZE",
              help="Bytes of tensors in one data file, for checkpoints and safetensors: 5GB, 512MiB.")  # fmt: skip
@click.option("--max-memory", type=Size(), metavar="SIZE", default=256 * MIB, show_default="256MiB",
              help="Bytes that tensors in memory may take beyond the largest one.")  # fmt: skip
@click.option("--overwrite", is_flag=True, help="Replace what is at DST.")
@click.option("--no-verify", is_flag=True, help="Do not read DST back and compare it with what was read from SRC.")
@click.option("--durability", type=click.Choice(["power-loss", "process-crash"]), default="power-loss",
              show_default=True, help="What DST must survive when the command returns.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print JSON, one document.")
@general_options
def command(
    source: str,
    target: str,
    to: str | None,
    casts: tuple[str, ...],
    include: tuple[str, ...],
    exclude: tuple[str, ...],
    max_shard_size: int | None,
    max_memory: int,
    overwrite: bool,
    no_verify: bool,
    durability: str,
    as_json: bool,
) -> int:
    """Write the tensors of SRC to DST in another format: whatever openckpt reads, to whatever it writes.

    DST is a prefix, or a file whose suffix says its format: .safetensors, .safetensors.index.json (many files), .h5, .npz. A
    dual checkpoint is read by TensorFlow, and its data file is a safetensors file as well. What a format has no type or name for is
    carried in its metadata, and openckpt reads it back exactly. DST appears whole or not at all; after a kill, the same command
    goes on. Exit code 1 means that DST is there already and is something else, or that no tensor is left to convert.
    """
    settings = current_settings()
    import openckpt

    try:
        with progress_bar() as (progress, _clear):
            done = openckpt.convert(
                source,
                target,
                to=cast("TargetFormat | None", to),
                cast=casts,
                include=include,
                exclude=exclude,
                max_shard_size=max_shard_size,
                max_memory=max_memory,
                overwrite=overwrite,
                verify=not no_verify,
                durability=cast("Durability", durability),
                limits=settings.limits,
                progress=progress,
            )
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    except (CheckpointError, OSError) as error:
        if settings.debug:
            raise
        if getattr(error, "code", None) in _USAGE:
            raise click.UsageError(str(error)) from None
        report_error(error)
        if as_json:
            print_json({"path": source, "error": error_document(error, source)})
        return exits.NO if _is_in_the_way(error) else exits.exit_code_of(error)
    if as_json:
        print_json(done.to_json())
    else:
        _print(Screen(settings), done)
    return exits.YES


def _is_in_the_way(error: CheckpointError | OSError) -> bool:
    """Return whether something is at the target; another writer of the source is trouble with the source."""
    return isinstance(error, ConflictError) and error.code.startswith(("convert.", "commit."))


def _print(screen: Screen, done: Conversion) -> None:
    arrow = f"{printable(done.source)} ({done.source_format}) -> {printable(done.target)} ({done.to})"
    screen.paragraph("", arrow, indent=0, text_style="bold")
    for cast_ in done.casts:
        lost = f", {cast_.overflows:,} became infinite" if cast_.overflows else ""
        worst = f"largest error {cast_.largest_error:.3g}{f' in {printable(cast_.at)}' if cast_.at else ''}"
        tensors = count_text(cast_.tensors, "tensor")
        screen.paragraph("", f"cast {cast_.source} to {cast_.target}: {tensors}, {worst}{lost}", indent=2)
    if done.filtered:
        names = names_text(done.filtered, len(done.filtered))
        screen.paragraph("", f"left out by filters: {names}", indent=2, text_style="dim")
    if done.kept:
        screen.paragraph("", f"{count_text(len(done.kept), 'finished file')} of an earlier run kept", indent=2)
    for note in done.notes:
        screen.paragraph("note: ", printable(note), indent=8, label_style="note")
    facts = [count_text(len(done.files), "file"), size_text(done.nbytes)]
    if done.already:
        facts += ["there already, compared with the source"]
    elif done.verified:
        facts += ["read back and equal"]
    facts += ["survives " + ("a power cut" if done.durability == "power-loss" else "a crash of the program")]
    screen.paragraph("", ", ".join(facts), indent=2)
    of = f"converted {done.converted:,} of {count_text(done.total, 'tensor')}"
    screen.line(screen.style(of, "good"))
