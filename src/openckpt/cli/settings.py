"""What holds for every command: limits, colour, traceback; and the options that set it, on the group and on each command."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import click

from openckpt.limits import DEFAULT_LIMITS, Limits

Decorated = TypeVar("Decorated", bound="Callable[..., object] | click.Command")


class Settings:
    """The general settings of one run of the program.

    Attributes:
        limits: caps against hostile input, ``--limit`` applied.
        color: False with ``--no-color``; None leaves it to the terminal and ``NO_COLOR``.
        debug: errors leave as tracebacks.
    """

    __slots__ = ("color", "debug", "limits")

    def __init__(self, limits: Limits = DEFAULT_LIMITS, *, color: bool | None = None, debug: bool = False) -> None:
        self.limits, self.color, self.debug = limits, color, debug


def current_settings() -> Settings:
    """Return the settings of the running command."""
    return click.get_current_context().ensure_object(Settings)


def _set_limits(ctx: click.Context, _param: click.Parameter, values: tuple[str, ...]) -> None:
    settings = ctx.ensure_object(Settings)
    for text in values:
        name, equals, number = text.partition("=")
        if name not in Limits._fields:
            from difflib import get_close_matches

            near = get_close_matches(name, Limits._fields, n=3, cutoff=0.5) or Limits._fields
            raise click.BadParameter(f"no limit {name!r}; there are {', '.join(near)}")
        if not equals or not number.isascii() or not number.isdecimal():
            raise click.BadParameter(f"write {name}=NUMBER, found {text!r}")
        change: dict[str, int] = {name: int(number)}
        settings.limits = settings.limits._replace(**change)


def _set_no_color(ctx: click.Context, _param: click.Parameter, value: bool) -> None:
    if value:
        ctx.ensure_object(Settings).color = False


def _set_debug(ctx: click.Context, _param: click.Parameter, value: bool) -> None:
    if value:
        ctx.ensure_object(Settings).debug = True


def general_options(command: Decorated) -> Decorated:
    """Add the options that every command has."""
    for option in (
        click.option("--debug", is_flag=True, expose_value=False, callback=_set_debug, help="Show tracebacks."),
        click.option(
            "--limit", multiple=True, metavar="NAME=VALUE", expose_value=False, callback=_set_limits,
            help="Raise a limit against hostile files, as an error message tells; may be repeated.",
        ),
        click.option(
            "--no-color", is_flag=True, expose_value=False, callback=_set_no_color,
            help="Plain text on a terminal too (as does the variable NO_COLOR).",
        ),
    ):  # fmt: skip
        command = option(command)
    return command


json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, one document per PATH and line.")
paths_argument = click.argument("paths", nargs=-1, required=True, metavar="PATH...")
