"""libhdf5 in a process of its own: it parses bytes of strangers in C, and its crash must be a finding, not our end.

    parent                                                       child (python -I)
    one line of JSON: path, limits, data, bytes that follow ->   limits its own memory and time
    the bytes of the file, where it is not a local one      ->
                                                            <-   length: <u8 | one JSON document, an `HDF5Report`

A child answers as many requests as it is given, because starting one costs a quarter of a second. Nothing that comes back is
trusted more than the file was: it is parsed as JSON, never as a pickle, and capped in size.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from openckpt.formats.flat import check_unchanged
from openckpt.formats.hdf5.report import HDF5Report, Problem, failed_report, report_from_json
from openckpt.limits import DEFAULT_LIMITS, GIB, Limits
from openckpt.storage.locks import ForkLock

if TYPE_CHECKING:
    import subprocess

    from openckpt.storage.reading import ByteSource

CHILD_MEMORY = 4 * GIB
"""Address space of a child beyond the bytes of the file it is given; numpy and libhdf5 alone map about half a GiB."""

CRASHED = "hdf5.parser-crashed"

_CHUNK = 1 << 20
_NO_MEMORY = 77  # exit status

# The parent's import path is handed over because -I ignores PYTHONPATH: the child must find the same openckpt and h5py.
_BOOT = (
    "import json, sys; sys.path[:] = json.loads(sys.argv.pop(1)); from openckpt.formats.hdf5.child import main; main()"
)


def child_command() -> list[str]:
    """Return the command that starts a child."""
    paths = json.dumps([path for path in sys.path if path])
    return [sys.executable, "-I", "-c", _BOOT, paths]


class HDF5Child:
    """A child process for inspections, started with the first one; a context manager, usable from several threads.

    Args:
        timeout: seconds for one file, until a child that hangs is killed.
        command: what to start instead of `child_command`, for tests of its death.
    """

    def __init__(self, *, timeout: float = 120.0, command: Sequence[str] | None = None) -> None:
        self._timeout = timeout
        self._command = command
        self._lock = ForkLock()
        self._owner = os.getpid()
        self._process: subprocess.Popen[bytes] | None = None

    def inspect(self, source: ByteSource, *, limits: Limits = DEFAULT_LIMITS, data: bool = False) -> HDF5Report:
        """Look at an HDF5 file; a local one is opened by the child, any other is sent to it.

        Args:
            source: the file.
            limits: caps against hostile input.
            data: read every chunk too.

        Returns:
            What the child found. When it died, hung or talked nonsense, a report with the fatal problem
            ``hdf5.parser-crashed``; how it ended stands in ``found``.

        Raises:
            CorruptionError: the source cannot be read.
            ConflictError: the file was replaced meanwhile, so that report and source may differ (``storage.changed``).
            OSError: no process can be started.
        """
        with self._lock:
            if self._owner != os.getpid():  # after a fork the pipes belong to the parent
                self._owner, self._process = os.getpid(), None
            used = self._process is not None
            report = self._ask(source, limits, data)
            if used and report.fatal is not None and report.fatal.code == CRASHED:
                # The file before this one may have damaged the child: this one deserves a fresh one.
                report = self._ask(source, limits, data)
        check_unchanged(source)
        return report

    def _ask(self, source: ByteSource, limits: Limits, data: bool) -> HDF5Report:
        process = self._process = self._process or self._start()
        late = threading.Event()

        def stop() -> None:
            late.set()
            process.kill()

        timer = threading.Timer(self._timeout, stop)
        timer.daemon = True
        timer.start()
        try:
            death, report = _converse(process, source, limits, data, self._timeout)
        except BaseException:  # the source cannot be read, or Ctrl-C: the child waits for bytes that will not come
            self._end()
            raise
        finally:
            timer.cancel()
        if report is not None:
            return report
        status = self._end(gently=death is None)
        if late.is_set():
            death = f"no answer in {self._timeout:g} seconds"
        found = death or _death(status)
        problem = Problem(CRASHED, None, "the HDF5 library failed on this file", found=found)
        return failed_report(source.path, problem)

    def _start(self) -> subprocess.Popen[bytes]:
        import subprocess

        # one thread: OpenBLAS otherwise reserves address space for each core; no plugins: they are foreign code
        environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "HDF5_PLUGIN_PATH": ""}
        return subprocess.Popen(
            list(child_command() if self._command is None else self._command),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
        )

    def _end(self, *, gently: bool = False) -> int:
        """End the process, or with ``gently`` let one that has stopped talking come to its own end; returns its status."""
        process, self._process = self._process, None
        if process is None:
            return 0
        for pipe in (process.stdin, process.stdout):
            try:
                if pipe is not None:
                    pipe.close()
            except OSError:
                pass  # bytes that the dead child did not take
        if not gently:
            process.kill()
        try:
            return process.wait(self._timeout)
        except BaseException:
            process.kill()
            return process.wait()

    def close(self) -> None:
        """End the process."""
        if self._owner == os.getpid():
            self._end()

    def __enter__(self) -> HDF5Child:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def _converse(
    process: subprocess.Popen[bytes], source: ByteSource, limits: Limits, data: bool, timeout: float
) -> tuple[str | None, HDF5Report | None]:
    """Return ``(None, report)``, or what was wrong with the answer, or ``(None, None)`` when there was none."""
    from openckpt.storage.local import LocalFile

    assert process.stdin is not None
    assert process.stdout is not None
    sent = 0 if type(source) is LocalFile else source.size
    request = {
        "path": source.path, "local": type(source) is LocalFile, "sent": sent, "data": data, "timeout": timeout,
        "limits": limits._asdict(),
    }  # fmt: skip
    try:
        process.stdin.write(json.dumps(request).encode() + b"\n")
        for at in range(0, sent, _CHUNK):
            process.stdin.write(source.read_at(at, min(_CHUNK, sent - at)))
        process.stdin.flush()
        head = process.stdout.read(8)
        if len(head) < 8:
            return None, None
        length = int.from_bytes(head, "little")
        if length > limits.json_bytes:
            return f"an answer of more than {limits.json_bytes} bytes", None
        answer = process.stdout.read(length)
    except (BrokenPipeError, ValueError):
        return None, None
    try:
        report = report_from_json(json.loads(answer))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return "an answer that is no report", None
    return (None, report) if report.path == source.path else ("an answer about another file", None)


def _death(status: int) -> str:
    import signal

    if status >= 0:
        return "out of memory" if status == _NO_MEMORY else f"no answer, exit status {status}"
    try:
        return f"signal {signal.Signals(-status).name}"
    except ValueError:
        return f"signal {-status}"


def main() -> None:
    """Be the child: answer requests until there are no more."""
    stdin, stdout = sys.stdin.buffer, sys.stdout.buffer
    try:
        while line := stdin.readline():
            request = json.loads(line)
            _limit_self(request["sent"], float(request["timeout"]))
            answer = json.dumps(_answer(request, stdin.read(request["sent"]))).encode()
            stdout.write(len(answer).to_bytes(8, "little") + answer)
            stdout.flush()
    except MemoryError:
        sys.exit(_NO_MEMORY)


def _answer(request: Mapping[str, Any], content: bytes) -> dict[str, Any]:
    from openckpt.formats.hdf5.data import check_data
    from openckpt.formats.hdf5.walk import inspect_hdf5
    from openckpt.storage.local import LOCAL
    from openckpt.storage.memory import MemorySource

    path = request["path"]
    source = LOCAL.open(path) if request["local"] else MemorySource(path, content)
    try:
        report = inspect_hdf5(source, limits=Limits(**request["limits"]))
        problems = list(report.problems)
        if request["data"] and report.fatal is None:
            problems += check_data(source, report)
    finally:
        source.close()
    return {**report.to_json(), "problems": [asdict(problem) for problem in problems]}


def _limit_self(content: int, seconds: float) -> None:
    """Cap memory and processor time of this process for one request, where the system can (not on Windows)."""
    try:
        import resource
    except ImportError:
        return
    usage = resource.getrusage(resource.RUSAGE_SELF)
    spent = int(usage.ru_utime + usage.ru_stime)
    wishes = {
        resource.RLIMIT_AS: CHILD_MEMORY + 2 * content,
        resource.RLIMIT_CPU: spent + int(seconds) + 2,
        resource.RLIMIT_CORE: 0,
    }
    for what, wanted in wishes.items():
        _, hard = resource.getrlimit(what)
        try:
            resource.setrlimit(what, (wanted if hard == resource.RLIM_INFINITY else min(wanted, hard), hard))
        except (ValueError, OSError):
            pass  # macOS refuses an address space below what is mapped already
