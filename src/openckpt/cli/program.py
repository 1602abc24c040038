"""The program itself: finds the command, runs it, and turns every way to end into one line and one exit code."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import suppress

import click

from openckpt.cli import exits
from openckpt.cli.settings import Settings, general_options
from openckpt.cli.terminal import error_line, prepare_streams, report_error
from openckpt.errors import CheckpointError

COMMANDS = ("doctor", "find", "ls", "tree", "show", "convert", "demo")
"""In the order of the help page; each is a function ``command`` in the module of that name."""


class OutputClosedError(Exception):
    """Whoever read our output is gone. Not an OSError, because click answers those itself."""


class InterruptedByUserError(Exception):
    """Ctrl-C. Not a KeyboardInterrupt, to which click adds an empty line."""


class LazyGroup(click.Group):
    """A group that imports the module of a command when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all commands."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return one command, or None."""
        if cmd_name not in COMMANDS:
            return None
        from importlib import import_module

        command: click.Command = import_module(f"openckpt.cli.{cmd_name}").command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command; a miss names the nearest one."""
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            from difflib import get_close_matches

            near = get_close_matches(args[0], COMMANDS, n=1)
            hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(COMMANDS)}"
            ctx.fail(f"no command {args[0]!r}; {hint}")
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> object:
        """Run the command; a closed pipe is told apart from every other trouble with a file."""
        try:
            result = super().invoke(ctx)
            _flush_stdout()
        except BrokenPipeError:
            raise OutputClosedError from None
        except KeyboardInterrupt:
            raise InterruptedByUserError from None
        return result


def _print_version(ctx: click.Context, _param: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        from openckpt.cli.version import version_text

        click.echo(version_text())
        ctx.exit()


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Every command takes --json and tells by its exit code: 0 yes, 1 no, 2 usage, 3 unreadable, 4 no such path.",
)
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_print_version,
    help="Print the version and the optional libraries found.",
)  # fmt: skip
@general_options
def program() -> None:
    """Open, prove, explain and convert TensorFlow checkpoints - without TensorFlow.

    PATH may be a prefix, any file of a checkpoint, a directory (its latest checkpoint), an archive, archive.tar.gz!inner/prefix,
    a SavedModel, .keras, .h5, .safetensors or .npz.
    """


def run(arguments: Sequence[str]) -> int:
    """Run one command line and return its exit code; nothing but a bug under ``--debug`` leaves as an exception."""
    prepare_streams()
    settings = Settings()
    if not arguments:  # somebody looks around: the whole page, on the stream of complaints
        click.echo(program.get_help(click.Context(program, info_name="openckpt", **program.context_settings)), err=True)
        return exits.USAGE
    try:
        code = program.main(list(arguments), prog_name="openckpt", standalone_mode=False, obj=settings)
        return code if isinstance(code, int) else exits.YES
    except OutputClosedError:
        _give_up_stdout()
        return exits.PIPE_CLOSED
    except (InterruptedByUserError, click.Abort, KeyboardInterrupt):
        error_line("interrupted")
        return exits.INTERRUPTED
    except click.ClickException as error:
        return _usage(error)
    except (CheckpointError, OSError) as error:
        if settings.debug:
            raise
        report_error(error)
        _give_up_stdout()
        return exits.exit_code_of(error)
    except Exception as error:
        if settings.debug:
            raise
        error_line(f"openckpt failed: {type(error).__name__}: {error}; this is a bug, --debug shows where", "error")
        return exits.BUG


def _usage(error: click.ClickException) -> int:
    hint = ""
    if isinstance(error, click.UsageError) and error.ctx is not None:
        hint = f"try: {error.ctx.command_path} --help"
    error_line(" ".join(error.format_message().split()), "usage", hint)
    return exits.USAGE


def _flush_stdout() -> None:
    try:
        sys.stdout.flush()
    except OSError as error:
        error.filename = "standard output"
        raise


def _give_up_stdout() -> None:
    # Where what is left cannot be written, closing marks the stream closed all the same, so that Python's own flush at exit
    # stays silent and leaves the exit code alone.
    try:
        sys.stdout.flush()
    except OSError:
        with suppress(OSError):
            sys.stdout.close()
