"""libhdf5 in a process of its own: it parses bytes of strangers in C, and its crash must be a finding, not our end.

    parent                                          child (python -I)
    path or "-", limits, data  --- argv --->        limits its own memory and time
    bytes of the file          --- stdin -->        only for "-": members of archives, bytes in memory
                               <-- stdout ---       one JSON document, an `HDF5Report`

Nothing that comes back is trusted more than the file was: it is parsed as JSON, never as a pickle, and capped in size.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import IO, TYPE_CHECKING

from openckpt.errors import CheckpointError
from openckpt.formats.hdf5.report import HDF5Report, Problem, failed_report, report_from_json
from openckpt.limits import DEFAULT_LIMITS, GIB, Limits

if TYPE_CHECKING:
    import subprocess

    from openckpt.storage.reading import ByteSource

CHILD_MEMORY = 4 * GIB
"""Address space of a child beyond the bytes of the file it is given; numpy and libhdf5 alone map about half a GiB."""

_CHUNK = 1 << 20

# The parent's import path is handed over because -I ignores PYTHONPATH: the child must find the same openckpt and h5py.
_BOOT = (
    "import json, sys; sys.path[:] = json.loads(sys.argv.pop(1)); from openckpt.formats.hdf5.child import main; main()"
)


def child_command() -> list[str]:
    """Return the command that starts a child; the arguments of one inspection follow."""
    paths = json.dumps([path for path in sys.path if path])
    return [sys.executable, "-I", "-c", _BOOT, paths]


def inspect_hdf5_in_child(
    source: ByteSource | str,
    *,
    limits: Limits = DEFAULT_LIMITS,
    timeout: float = 120.0,
    data: bool = False,
    command: Sequence[str] | None = None,
) -> HDF5Report:
    """Look at an HDF5 file in a process of its own.

    Args:
        source: the path of a local file, or any open source (local files are opened by the child, others are sent to it).
        limits: caps against hostile input.
        timeout: seconds until a child that hangs is killed.
        data: read every chunk too.
        command: what to start instead of `child_command`, for tests of its death.

    Returns:
        What the child found. When it died, hung or talked nonsense, a report with the fatal problem
        ``hdf5.parser-crashed``; the name of the signal stands in ``found``.

    Raises:
        OSError: the path cannot be opened, or no process can be started.
    """
    from openckpt.storage.local import LOCAL, LocalFile

    if isinstance(source, str):
        LOCAL.open(source).close()  # an absent file is the caller's error, not a finding
        path, name, feed = source, source, None
    else:
        local = type(source) is LocalFile
        path, name, feed = source.path, source.path if local else "-", None if local else source
    options = {"path": path, "timeout": timeout, "data": data, "limits": asdict(limits)}
    arguments = [*(child_command() if command is None else command), name, json.dumps(options)]
    answer, death = _run(arguments, feed, timeout, limits.json_bytes)
    if death is None:
        try:
            report = report_from_json(json.loads(answer))
            if report.path == path:
                return report
            death = "an answer about another file"
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            death = "an answer that is no report"
    return failed_report(
        path, Problem("hdf5.parser-crashed", None, "the HDF5 library failed on this file", found=death)
    )


def _run(arguments: Sequence[str], feed: ByteSource | None, timeout: float, most: int) -> tuple[bytes, str | None]:
    """Run a child; return its output, and how it died or None."""
    import os
    import subprocess
    import threading

    # one thread: OpenBLAS otherwise reserves address space for each core
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "HDF5_PLUGIN_PATH": ""}
    child = subprocess.Popen(
        list(arguments),
        stdin=subprocess.DEVNULL if feed is None else subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=environment,
    )
    late = threading.Event()

    def stop() -> None:
        late.set()
        child.kill()

    timer = threading.Timer(timeout, stop)
    timer.daemon = True
    timer.start()
    sender = threading.Thread(target=_send, args=(feed, child.stdin), daemon=True) if feed is not None else None
    try:
        if sender is not None:
            sender.start()
        assert child.stdout is not None
        answer = child.stdout.read(most + 1)
        if len(answer) > most:
            child.kill()
            return b"", f"an answer of more than {most} bytes"
        status = child.wait()
        if sender is not None:
            sender.join()
    finally:
        timer.cancel()
        _end(child)
    if late.is_set():
        return b"", f"no answer in {timeout:g} seconds"
    return answer, None if status == 0 else _death(status)


def _end(child: subprocess.Popen[bytes]) -> None:
    if child.poll() is None:
        child.kill()
        child.wait()
    if child.stdout is not None:
        child.stdout.close()


def _send(source: ByteSource, pipe: IO[bytes]) -> None:
    try:
        with pipe:
            for at in range(0, source.size, _CHUNK):
                pipe.write(source.read_at(at, min(_CHUNK, source.size - at)))
    except (OSError, ValueError, CheckpointError):
        pass  # the child died, or the file shrank: the child notices what is missing


def _death(status: int) -> str:
    import signal

    if status >= 0:
        return "out of memory" if status == _NO_MEMORY else f"exit status {status}"
    try:
        return f"signal {signal.Signals(-status).name}"
    except ValueError:
        return f"signal {-status}"


_NO_MEMORY = 77


def main() -> None:
    """Be the child: inspect the file that the command line names, write the report to stdout."""
    from openckpt.formats.hdf5.data import check_data
    from openckpt.formats.hdf5.walk import inspect_hdf5
    from openckpt.storage.local import LOCAL
    from openckpt.storage.memory import MemorySource

    name, options = sys.argv[1], json.loads(sys.argv[2])
    limits = Limits(**options["limits"])
    try:
        content = sys.stdin.buffer.read() if name == "-" else b""
        _limit_self(len(content), float(options["timeout"]))
        source = MemorySource(options["path"], content) if name == "-" else LOCAL.open(name)
        report = inspect_hdf5(source, limits=limits)
        problems = list(report.problems)
        if options["data"] and report.fatal is None:
            problems += check_data(source, report)
        answer = {**report.to_json(), "problems": [asdict(problem) for problem in problems]}
        sys.stdout.write(json.dumps(answer))
        sys.stdout.flush()
    except MemoryError:
        sys.exit(_NO_MEMORY)


def _limit_self(content: int, seconds: float) -> None:
    """Cap memory and processor time of this process where the system can (not on Windows)."""
    try:
        import resource
    except ImportError:
        return
    for what, wanted in ((resource.RLIMIT_AS, CHILD_MEMORY + 2 * content), (resource.RLIMIT_CPU, int(seconds) + 1)):
        soft, hard = resource.getrlimit(what)
        caps = [cap for cap in (wanted, soft, hard) if cap != resource.RLIM_INFINITY]
        try:
            resource.setrlimit(what, (min(caps), hard))
        except (ValueError, OSError):
            pass  # macOS refuses an address space limit below what is mapped already
    try:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    except (ValueError, OSError):
        pass
