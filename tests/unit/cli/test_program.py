"""Exit codes, errors and manners that hold for every command."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from openckpt.cli import exits
from openckpt.cli.program import COMMANDS, run
from openckpt.formats.bundle import encode_bundle
from openckpt.storage.writing import write_folder
from unit.cli.conftest import EVIL
from unit.cli.running import Runner, plain_environment, run_on_terminal, run_process

READERS = [("ls",), ("tree",), ("show", "KEY")]


def arguments(command: tuple[str, ...], path: Path | str) -> list[str]:
    return [command[0], str(path), *(key.replace("KEY", "dense/kernel") for key in command[1:])]


# ------------------------------------------------------------------------------------------------------- exit codes


@pytest.mark.parametrize("command", READERS, ids=lambda command: command[0])
def test_a_whole_checkpoint_is_0(openckpt_cli: Runner, run_folder: Path, command: tuple[str, ...]) -> None:
    """Yes, done; nothing on stderr."""
    answer = openckpt_cli(*arguments(command, run_folder / "ckpt-2"))
    assert (answer.code, answer.err) == (0, "")


@pytest.mark.parametrize("command", [*READERS, ("doctor",)], ids=lambda command: command[0])
def test_a_path_that_does_not_exist_is_4(openckpt_cli: Runner, run_folder: Path, command: tuple[str, ...]) -> None:
    """Whatever the command, an absent path is told apart from a damaged one."""
    assert openckpt_cli(*arguments(command, run_folder / "nothing-here")).code == exits.NO_PATH


def test_find_below_a_path_that_does_not_exist_is_4(openckpt_cli: Runner, tmp_path: Path) -> None:
    """A mistyped root is not the same as a root without checkpoints."""
    assert openckpt_cli("find", tmp_path / "nothing-here").code == exits.NO_PATH


@pytest.mark.parametrize("command", READERS, ids=lambda command: command[0])
def test_something_else_altogether_is_3(openckpt_cli: Runner, tmp_path: Path, command: tuple[str, ...]) -> None:
    """A web page is no checkpoint: unreadable, one line, no traceback."""
    page = tmp_path / "model.ckpt.index"
    page.write_text("<!DOCTYPE html><html><body>404 Not Found</body></html>" * 10)
    answer = openckpt_cli(*arguments(command, page))
    assert answer.code == exits.UNREADABLE
    assert answer.err.startswith("openckpt: error: ")
    assert "Traceback" not in answer.err


def test_a_tensor_that_fails_its_checksum_is_3(openckpt_cli: Runner, damaged: Path) -> None:
    """`show` reads values, so it is the one that meets damaged data; --no-verify shows them anyway."""
    answer = openckpt_cli("show", damaged, "dense/kernel")
    assert answer.code == exits.UNREADABLE
    assert "bundle.crc-mismatch" in answer.err
    assert openckpt_cli("show", damaged, "dense/kernel", "--no-verify").code == exits.YES


def test_a_missing_key_is_1_and_names_the_nearest(openckpt_cli: Runner, run_folder: Path) -> None:
    """The checkpoint is fine, the answer is no."""
    answer = openckpt_cli("show", run_folder, "dense/kernal")
    assert answer.code == exits.NO
    assert "dense/kernel" in answer.err


def test_no_match_of_a_filter_is_1(openckpt_cli: Runner, run_folder: Path) -> None:
    """Like `grep`: nothing found."""
    assert openckpt_cli("ls", run_folder, "--glob", "nothing*").code == exits.NO


def test_the_worst_code_wins_and_every_path_is_answered(openckpt_cli: Runner, run_folder: Path, tmp_path: Path) -> None:
    """One bad PATH does not keep the others from their answer."""
    answer = openckpt_cli("ls", "--json", run_folder / "ckpt-1", tmp_path / "absent", run_folder / "ckpt-2")
    assert answer.code == exits.NO_PATH
    assert [("error" in document, "tensors" in document) for document in answer.documents] == [
        (False, True), (True, False), (False, True),
    ]  # fmt: skip


@pytest.mark.parametrize(
    "line",
    [["lss"], ["ls"], ["ls", "--no-such-option", "x"], ["ls", "--regex", "(", "x"], ["ls", "--limit", "nonsense=1", "x"],
     ["ls", "--limit", "shards=many", "x"], ["show", "x"], ["ls", "--sort", "size", "x"], ["--nonsense"]],
)  # fmt: skip
def test_a_wrong_command_line_is_2(openckpt_cli: Runner, line: list[str]) -> None:
    """Usage errors are one line and a hint, on stderr."""
    answer = openckpt_cli(*line)
    assert (answer.code, answer.out) == (exits.USAGE, "")
    assert answer.err.startswith("openckpt: usage: ")


def test_no_command_shows_the_whole_help(openckpt_cli: Runner) -> None:
    """Somebody looks around: the page as --help prints it, line by line, but the command line was none."""
    answer = openckpt_cli()
    assert (answer.code, answer.out) == (exits.USAGE, "")
    assert answer.err == openckpt_cli("--help").out


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-"])
def test_closed_streams_leave_the_exit_code(run_folder: Path, closed: str) -> None:
    """A script that wants nothing but the answer may close what it does not read."""
    for path, code in ((run_folder / "ckpt-2", 0), (run_folder / "absent", exits.NO_PATH)):
        command = f"{shlex.quote(sys.executable)} -m openckpt.cli ls {shlex.quote(str(path))} {closed}"
        done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, env=plain_environment())
        assert done.returncode == code
        assert "Traceback" not in done.stderr


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this system has no full device")
@pytest.mark.parametrize("command", ["ls", "doctor", "find", "tree"])
def test_output_that_cannot_be_written_is_4(run_folder: Path, command: str) -> None:
    """Two lines of ours, and nothing that Python adds at its end."""
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "openckpt.cli", command, run_folder], stdout=full, stderr=subprocess.PIPE, text=True,
            env=plain_environment(),
        )  # fmt: skip
    assert done.returncode == exits.NO_PATH
    assert all(line.startswith("openckpt: error: ") for line in done.stderr.splitlines())
    assert "No space left" in done.stderr


def test_a_mistyped_command_names_the_nearest(openckpt_cli: Runner) -> None:
    """`openckpt docter` is one letter away."""
    assert "did you mean doctor?" in openckpt_cli("docter", "x").err


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="the permission is not refused to this user")
def test_a_refusal_of_the_system_is_4(openckpt_cli: Runner, run_folder: Path) -> None:
    """No permission is no damage."""
    index = run_folder / "ckpt-2.index"
    index.chmod(0)
    answer = openckpt_cli("ls", run_folder / "ckpt-2")
    assert answer.code == exits.NO_PATH
    assert "Permission denied" in answer.err


def test_a_bug_is_70_one_line_and_a_traceback_only_with_debug(
    openckpt_cli: Runner, run_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A defect of openckpt is never a verdict on a checkpoint."""
    import openckpt

    def broken(*_args: object, **_kwargs: object) -> None:
        raise IndexError("list index out of range")

    monkeypatch.setattr(openckpt, "open", broken)
    answer = openckpt_cli("ls", run_folder)
    assert answer.code == exits.BUG
    assert answer.err.count("\n") == 1
    assert "IndexError" in answer.err
    with pytest.raises(IndexError):
        run(["ls", "--debug", str(run_folder)])


def test_debug_shows_where_an_error_came_from(run_folder: Path) -> None:
    """With --debug the exception leaves as it is, also from inside a list of paths."""
    from openckpt import PathNotFoundError

    with pytest.raises(PathNotFoundError):
        run(["--debug", "ls", str(run_folder / "absent")])


# ------------------------------------------------------------------------------------------------------------ limits


def test_a_raised_limit_is_used_and_a_lowered_one_named(openckpt_cli: Runner, run_folder: Path) -> None:
    """The command that the error's fix names works as it stands."""
    answer = openckpt_cli("ls", "--limit", "shards=1", run_folder / "ckpt-2")
    assert answer.code == exits.UNREADABLE
    assert "--limit shards=2" in answer.err
    assert openckpt_cli("ls", "--limit", "shards=2", run_folder / "ckpt-2").code == exits.YES


# ------------------------------------------------------------------------------------------------ streams and signals


def test_help_of_every_command_needs_nothing(openckpt_cli: Runner) -> None:
    """`-h` works for the program and for each command."""
    assert openckpt_cli("-h").code == 0
    for command in COMMANDS:
        answer = openckpt_cli(command, "--help")
        assert answer.code == 0
        assert answer.out.startswith(f"Usage: openckpt {command}")


def test_version_lists_the_optional_libraries(openckpt_cli: Runner) -> None:
    """A report of a bug needs them."""
    answer = openckpt_cli("--version")
    assert answer.code == 0
    for name in ("openckpt", "numpy", "h5py", "cramjam", "rich"):
        assert name in answer.out


def test_head_ends_it_quietly(tmp_path: Path) -> None:
    """A reader that goes away gives no traceback and no message, and not the exit code of a verdict."""
    tensors = {f"layer/{number:06d}": np.zeros(1, "f4") for number in range(20_000)}
    write_folder(str(tmp_path), encode_bundle(tensors, "many"))
    process = subprocess.Popen(
        [sys.executable, "-m", "openckpt.cli", "ls", str(tmp_path / "many")],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=plain_environment(),
    )  # fmt: skip
    assert process.stdout is not None and process.stderr is not None
    process.stdout.readline()
    process.stdout.close()
    err = process.stderr.read()
    process.stderr.close()
    assert (process.wait(timeout=60), err) == (exits.PIPE_CLOSED, b"")


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
def test_ctrl_c_prints_one_line() -> None:
    """Interrupted work says so once and exits with 130."""
    script = (
        "import sys\n"
        "from openckpt.cli.program import run\n"
        "import openckpt\n"
        "def work(*args, **kwargs):\n"
        "    print('ready', flush=True)\n"
        "    while True: pass\n"
        "openckpt.open = work\n"
        "sys.exit(run(['ls', 'x']))\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=plain_environment()
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (exits.INTERRUPTED, b"openckpt: interrupted\n")


@pytest.mark.parametrize("locale", ["C", "POSIX"])
def test_a_terminal_without_utf8_does_not_crash(zoo: Path, locale: str) -> None:
    """What the encoding lacks is escaped; nothing is lost and nothing raises."""
    for command in (["ls", zoo], ["show", zoo, "*"], ["tree", zoo]):
        result = run_process(*command, LC_ALL=locale, PYTHONUTF8="0", PYTHONCOERCECLOCALE="0")
        assert (result.returncode, result.stderr) == (0, b"")
        result.stdout.decode("ascii")
        assert b"\\u65e5\\u672c\\u8a9e" in result.stdout


def test_a_name_cannot_reach_the_terminal(openckpt_cli: Runner, zoo: Path) -> None:
    """Escape sequences, newlines and turned text in a tensor's name are shown, never obeyed."""
    for command in (["ls", zoo], ["tree", zoo], ["show", zoo, EVIL], ["show", zoo, "words"], ["show", zoo, EVIL + "?"]):
        answer = openckpt_cli(*command)
        assert not set("\x1b\x07\u202e") & set(answer.out + answer.err)
    assert "evil\\x1b]0;owned\\x07" in openckpt_cli("ls", zoo).out


def test_a_path_cannot_reach_the_terminal(openckpt_cli: Runner, tmp_path: Path) -> None:
    """The same for names of files that do not exist, and in usage errors."""
    for command in (["ls", tmp_path / EVIL], ["doctor", tmp_path / EVIL], ["ls", "--limit", EVIL, "x"], [EVIL]):
        answer = openckpt_cli(*command)
        assert answer.code != 0
        assert not set("\x1b\x07\u202e") & set(answer.out + answer.err)


@pytest.mark.skipif(os.name == "nt", reason="pseudo-terminals of POSIX")
class TestOnATerminal:
    """What changes when a person looks."""

    def test_there_is_colour_and_no_line_is_wider_than_the_screen(self, zoo: Path) -> None:
        """Rows are cut in the key, not wrapped by the terminal."""
        import re

        code, drawn = run_on_terminal("ls", zoo, columns=60)
        assert code == 0
        assert "\x1b[" in drawn
        plain = re.sub(r"\x1b\[[0-9;]*m", "", drawn)
        # The first line is the path, which wraps as a whole so that it can be copied.
        assert max(len(line) for line in plain.splitlines()[1:]) <= 60

    def test_type_and_shape_stay_whole_on_a_narrow_screen(self, run_folder: Path) -> None:
        """They go to a line of their own before the terminal cuts them."""
        for columns in (30, 80):
            code, drawn = run_on_terminal("show", run_folder / "ckpt-2", "dense/kernel", "--no-color", columns=columns)
            assert code == 0
            facts = next(line for line in drawn.splitlines() if "float32" in line)
            assert facts.startswith("dense/kernel") == (columns == 80)
            assert len(facts) <= columns

    @pytest.mark.parametrize("how", [{"NO_COLOR": "1"}, {"arguments": ["--no-color"]}], ids=["NO_COLOR", "--no-color"])
    def test_colour_can_be_switched_off(self, zoo: Path, how: dict[str, object]) -> None:
        """Both ways give text without a single escape."""
        extra = how.get("arguments", [])
        assert isinstance(extra, list)
        environment = {key: str(value) for key, value in how.items() if key != "arguments"}
        code, drawn = run_on_terminal("ls", zoo, *extra, **environment)
        assert (code, "\x1b" in drawn) == (0, False)

    def test_short_work_draws_no_bar(self, run_folder: Path) -> None:
        """A bar is for work of more than a second."""
        _, drawn = run_on_terminal("doctor", run_folder)
        assert "\x1b[?25l" not in drawn  # rich hides the cursor while it draws


def test_a_pipe_has_no_escapes_and_no_bar(zoo: Path) -> None:
    """Plain text on both streams, whatever the terminal's variables say."""
    result = run_process("ls", zoo, TERM="xterm-256color")
    assert (result.returncode, result.stderr) == (0, b"")
    assert b"\x1b" not in result.stdout
