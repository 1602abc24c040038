"""The process that attacks are made on: one server with openckpt imported, one fork of it for every case.

    request   one line of JSON on standard input:   {"root": ..., "path": ..., "how": "read" | "doctor"}
    answer    one line of JSON on standard output:  the fields of `Outcome`, or {"died": "..."}

The fork is held by RLIMIT_AS (a bomb gets a MemoryError, not the machine) and watched by an audit hook: every file that it
opens, removes, renames or makes, every process it starts and every socket is compared with what reading a checkpoint needs.
Run as a script; must not import pytest.
"""

from __future__ import annotations

import json
import os
import resource
import select
import signal
import sys
import sysconfig
import threading
import time
import warnings
from dataclasses import asdict, dataclass, field

ADDRESS_SPACE = 1 << 30  # above what the server already maps; thread stacks and allocator arenas count, so not 64 MiB
SECONDS = 20  # a case that hangs is killed after this much wall time, whatever the machine is doing


@dataclass
class Outcome:
    """What one attack did. Sizes in bytes, times in seconds of CPU (a busy machine makes walls meaningless)."""

    codes: list[str] = field(default_factory=list)
    kinds: list[str] = field(default_factory=list)
    severities: list[str] = field(default_factory=list)
    escaped: str | None = None
    growth: int = 0
    seconds: float = 0.0
    trespasses: list[str] = field(default_factory=list)


def _open_everything(path: str, outcome: Outcome) -> None:
    """Open, list all specs, read every tensor and the graph; the first error ends it."""
    import openckpt

    try:
        with openckpt.open(path) as ckpt:
            for _ in ckpt.specs.items():
                pass
            for key in ckpt:
                ckpt[key]
            _ = ckpt.graph
    except openckpt.CheckpointError as error:
        outcome.codes.append(error.code)
        outcome.kinds.append(type(error).__name__)
        str(error), repr(error)  # whatever the bytes are, the message can be made


def _diagnose(path: str, outcome: Outcome) -> None:
    import openckpt

    report = openckpt.diagnose(path)
    findings = list(report.findings)
    findings += [finding for checkpoint in report.checkpoints for finding in checkpoint.findings]
    for finding in findings:
        outcome.codes.append(finding.code)
        outcome.severities.append(finding.severity)
        json.dumps(finding.to_json())


_DO = {"read": _open_everything, "doctor": _diagnose}


class _Watch:
    """An audit hook that notes every touch of the world outside the attacked folder, and every write anywhere."""

    def __init__(self, root: str) -> None:
        self.trespasses: list[str] = []
        paths = {sys.prefix, sys.base_prefix, sys.exec_prefix, *sysconfig.get_paths().values()}
        paths |= {os.path.dirname(os.path.abspath(entry or ".")) for entry in sys.path}
        paths |= {os.path.abspath(entry) for entry in sys.path if entry}
        self._code = tuple(os.path.realpath(path) + os.sep for path in paths if path not in ("", os.sep))
        self._root = os.path.realpath(root)
        self._state = threading.local()

    def __call__(self, event: str, args: tuple[object, ...]) -> None:
        if event not in _EVENTS or getattr(self._state, "busy", False):
            return
        self._state.busy = True  # resolving a path raises events of its own
        try:
            self._look(event, args)
        finally:
            self._state.busy = False

    def _look(self, event: str, args: tuple[object, ...]) -> None:
        if event == "open":
            path, mode, flags = args
            if isinstance(path, int):
                return
            writes = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
            writing = (isinstance(flags, int) and flags & writes) or (isinstance(mode, str) and set(mode) & set("wax+"))
            if os.fspath(path) == os.devnull:  # type: ignore[call-overload]
                return
            if writing:
                self.trespasses.append(f"writes {path!r}")
            elif not self._allowed(path):
                self.trespasses.append(f"opens {path!r}")
        elif event in ("os.scandir", "os.listdir"):
            if args[0] is not None and not isinstance(args[0], int) and not self._allowed(args[0]):
                self.trespasses.append(f"lists {args[0]!r}")
        elif event in ("subprocess.Popen", "os.posix_spawn"):  # from 3.13 on the first does the second
            if os.path.realpath(str(args[0])) != os.path.realpath(sys.executable):
                self.trespasses.append(f"runs {args[0]!r}")
        else:
            self.trespasses.append(f"{event}{args!r}")

    def _allowed(self, path: object) -> bool:
        real = os.path.realpath(os.fsdecode(path))  # type: ignore[arg-type]
        inside = real == self._root or real.startswith(self._root + os.sep)
        return inside or (real + os.sep).startswith(self._code) or real.startswith("/proc/self/")


_EVENTS = frozenset(
    "open os.scandir os.listdir os.remove os.rename os.rmdir os.mkdir os.link os.symlink os.truncate os.chmod os.utime "
    "os.system os.exec os.posix_spawn subprocess.Popen socket.connect socket.bind pickle.find_class ctypes.dlopen "
    "shutil.rmtree tempfile.mkstemp tempfile.mkdtemp".split()
)


def _cpu_seconds() -> float:
    own, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime


def _peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _attack(request: dict[str, str]) -> Outcome:
    """Run one case in this (forked) process."""
    outcome = Outcome()
    if sys.platform == "linux":  # macOS takes the limit and ignores it
        with open("/proc/self/statm", encoding="ascii") as statm:
            mapped = int(statm.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (mapped + ADDRESS_SPACE, mapped + ADDRESS_SPACE))
    os.chdir(request["root"])
    watch = _Watch(request["root"])
    sys.addaudithook(watch)
    before, start = _peak_bytes(), _cpu_seconds()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            _DO[request["how"]](request["path"], outcome)
    except BaseException as error:
        outcome.escaped = f"{type(error).__module__}.{type(error).__qualname__}: {error!s:.300}"
    outcome.seconds = _cpu_seconds() - start
    outcome.growth = _peak_bytes() - before
    outcome.trespasses = watch.trespasses
    return outcome


def _in_a_fork(request: dict[str, str]) -> dict[str, object]:
    """Run one case in a fork of this process and return its outcome, or how it died."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            os.close(reading)
            os.setpgid(0, 0)
            answer = json.dumps(asdict(_attack(request))).encode()
            while answer:
                answer = answer[os.write(writing, answer) :]
            status = 0
        finally:
            os._exit(status)
    os.close(writing)
    data = b""
    until = time.monotonic() + SECONDS
    while select.select([reading], [], [], max(0.0, until - time.monotonic()))[0]:
        part = os.read(reading, 1 << 16)
        if not part:
            break
        data += part
    else:
        os.killpg(pid, signal.SIGKILL)
        data = b""
    os.close(reading)
    _, status = os.waitpid(pid, 0)
    if not data:
        return {"died": f"no answer within {SECONDS} s, or killed: wait status {status}"}
    answer: dict[str, object] = json.loads(data)
    return answer


def _import_everything(warm_up: list[str]) -> None:
    """Import what any case may import, so that its cost is the server's, by reading something sound of every format."""
    import importlib
    import pkgutil

    import numpy  # noqa: F401

    import openckpt

    # Readers import nothing of live programs, whose frameworks would take all of the memory that an attack may have.
    rooms = ("__main__", "keras", "training", "testing")
    for module in pkgutil.iter_modules(openckpt.__path__, "openckpt."):
        if module.name.rpartition(".")[2] in rooms:
            continue
        room = importlib.import_module(module.name)
        for inner in pkgutil.walk_packages(getattr(room, "__path__", ()), module.name + "."):
            if not inner.name.endswith("__main__"):
                importlib.import_module(inner.name)
    for library in ("google.protobuf.message", "h5py", "ml_dtypes", "cramjam", "fastcrc"):
        importlib.import_module(library)
    for path in warm_up:
        for do in _DO.values():
            outcome = Outcome()
            do(path, outcome)


def main() -> None:
    """Answer requests until standard input ends; arguments are sound checkpoints to warm up with."""
    warnings.simplefilter("ignore")
    _import_everything(sys.argv[1:])
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    for line in sys.stdin:
        sys.stdout.write(json.dumps(_in_a_fork(json.loads(line))) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
