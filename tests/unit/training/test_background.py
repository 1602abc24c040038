"""Saves in the background: what they store, one at a time, errors that are heard, programs that end, forks."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest

import openckpt
from interrupting import AtCall
from openckpt import Checkpoint, SaveHandle
from openckpt.errors import ConflictError, UnsupportedError
from openckpt.formats.dtypes import BY_NAME
from openckpt.storage.disk import DISK
from openckpt.testing import Call, CallFS, FaultyFS
from openckpt.training import CheckpointManager, snapshot
from openckpt.training.snapshot import Copying, HostBuffers

T = TypeVar("T")
VALUE = "/.ATTRIBUTES/VARIABLE_VALUE"


class GateFS(CallFS):
    """A disk on which nothing happens before the gate is opened."""

    def __init__(self) -> None:
        super().__init__(DISK)
        self.gate = threading.Event()

    def around(self, call: Call, do: Callable[[], T]) -> T:
        assert self.gate.wait(60)
        return do()


def stored(path: str) -> dict[str, Any]:
    return {key.removesuffix(VALUE): value.tolist() for key, value in openckpt.load(path).items() if key[0] != "_"}


def child(program: str, directory: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", program], cwd=directory, capture_output=True, text=True, timeout=100, check=False
    )


# -- what is stored -----------------------------------------------------------------------------------------------------


def test_the_file_has_the_values_of_the_call(tmp_path: Path) -> None:
    """Whatever the program does while the disk has not taken a byte yet: arrays of every layout, numbers, text, objects."""
    disk = GateFS()
    arrays = {
        "plain": np.arange(6.0),
        "strided": np.arange(12.0).reshape(3, 4).T[::2],
        "empty": np.zeros((0, 3)),
        "scalar": np.array(7),
        "text": np.array(["a", b"b"], object),
        "fixed": np.array(["xyz", "q"]),
        "big_endian": np.arange(3, dtype=">i4"),
        "bits": np.array([True, False]),
    }
    random = np.random.default_rng(3)
    checkpoint = Checkpoint(arrays=arrays, epoch=3, note="old", random=random)
    before = stored(checkpoint.write(tmp_path / "now"))
    handle = checkpoint.write(tmp_path / "later", blocking=False, store=disk)
    for name, array in arrays.items():
        array[...] = "changed" if array.dtype.kind in "OU" else 1 - array
        assert name == "empty" or array.size
    checkpoint.epoch, checkpoint.note = 4, "new"
    random.random()
    assert not handle.done
    disk.gate.set()
    assert stored(handle.result(60)) == before


@pytest.mark.torch
def test_torch_parameters_may_be_stepped(tmp_path: Path) -> None:
    """In place, right after the save has returned."""
    torch = pytest.importorskip("torch")
    disk = GateFS()
    model = torch.nn.Linear(3, 2).to(torch.bfloat16)
    old = model.weight.detach().float().numpy().copy()
    handle = Checkpoint(model=model).save(tmp_path / "ckpt", blocking=False, store=disk)
    with torch.no_grad():
        model.weight.zero_()
    disk.gate.set()
    assert openckpt.load(handle.result(60))["model/weight" + VALUE].astype(np.float32).tolist() == old.tolist()


@pytest.mark.jax
def test_jax_arrays_may_be_donated(tmp_path: Path) -> None:
    """A donated array is gone, and its memory may be that of the next one."""
    jax = pytest.importorskip("jax")
    disk = GateFS()
    state = jax.numpy.arange(5000.0)
    checkpoint = Checkpoint(state=state)
    handle = checkpoint.save(tmp_path / "ckpt", blocking=False, store=disk)
    step = jax.jit(lambda x: x * 0 - 1, donate_argnums=0)
    checkpoint.state = state = step(state).block_until_ready()
    for _ in range(3):
        checkpoint.state = state = step(state).block_until_ready()
    disk.gate.set()
    assert openckpt.load(handle.result(60))["state" + VALUE].tolist() == list(range(5000))


def test_large_arrays_are_copied_by_several_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every element once, the last few too; and here where no thread is to be had."""
    monkeypatch.setattr(snapshot, "_LARGE_BYTES", 100)
    monkeypatch.setattr(snapshot, "_CHUNK_BYTES", 64)
    monkeypatch.setattr(snapshot, "_THREADS", 3)
    arrays = [np.arange(1003.0).reshape(17, 59) + n for n in range(3)]
    assert all(map(np.array_equal, copies(HostBuffers(), arrays), arrays))
    monkeypatch.setattr(threading.Thread, "start", _no_thread)
    assert all(map(np.array_equal, copies(HostBuffers(), arrays), arrays))


def test_memory_of_large_arrays_is_mapped(monkeypatch: pytest.MonkeyPatch) -> None:
    """And like any other: writable, of the same type and shape."""
    monkeypatch.setattr(snapshot, "_MAPPED_BYTES", 8)
    for dtype in ("float32", "bool", "bfloat16", "complex128"):
        array = np.arange(6).reshape(2, 3).astype(BY_NAME[dtype].numpy())
        (copy,) = copies(HostBuffers(), [array])
        assert copy.dtype == array.dtype and copy.flags.writeable and not np.shares_memory(copy, array)
        np.testing.assert_array_equal(copy, array)


def test_an_interrupted_copy_leaves_no_thread_that_writes(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was not begun is dropped."""
    monkeypatch.setattr(snapshot, "_LARGE_BYTES", 1)
    with pytest.raises(KeyboardInterrupt), Copying() as copying:
        HostBuffers().copy("a", np.ones(10), copying)
        raise KeyboardInterrupt
    assert not [thread for thread in threading.enumerate() if thread.name == "openckpt-copy"]


def copies(buffers: HostBuffers, arrays: list[np.ndarray]) -> list[np.ndarray]:
    """Return the copies of arrays, made in one go."""
    with Copying() as copying:
        return [buffers.copy(str(number), array, copying) for number, array in enumerate(arrays)]


def test_memory_is_used_again(tmp_path: Path) -> None:
    """The second save takes none; one copy of the state is held, also when tensors come, go and change their shape."""
    buffers = HostBuffers()
    with Copying() as copying:
        first = buffers.copy("a", np.arange(4), copying)
        assert buffers.copy("a", np.ones(4, int), copying) is first
        assert buffers.copy("a", np.arange(5), copying) is not first
        buffers.copy("b", np.arange(100), copying)
        buffers.keep({"a"})
        assert buffers.nbytes == 5 * 8
        assert buffers.copy("n", 3, copying) == 3
    assert buffers.nbytes == 5 * 8


# -- counting, order, waiting -------------------------------------------------------------------------------------------


def test_saves_are_counted_at_the_call_and_end_in_order(tmp_path: Path) -> None:
    """The number is taken at once; the next save begins when the one before has ended."""
    w = np.zeros(2)
    checkpoint = Checkpoint(w=w)
    handles = []
    for number in range(1, 5):
        w[:] = number
        handles.append(checkpoint.save(tmp_path / "ckpt", blocking=False))
        assert checkpoint.save_counter == number
        assert all(handle.done for handle in handles[:-1])
    assert [handle.result(60).step for handle in handles] == [1, 2, 3, 4]
    assert [stored(handle.path)["w"] for handle in handles] == [[float(n)] * 2 for n in range(1, 5)]
    assert openckpt.latest_checkpoint(tmp_path) == handles[-1].path


def test_a_save_waits_no_longer_than_it_is_told(tmp_path: Path) -> None:
    """Nothing is saved then, and nothing counted; neither does the handle wait longer."""
    disk = GateFS()
    checkpoint = Checkpoint(w=np.ones(2))
    handle = checkpoint.save(tmp_path / "ckpt", blocking=False, store=disk)
    assert repr(handle).endswith("under way>")
    assert not handle.wait(0)
    for late in (
        lambda: handle.result(0),
        lambda: checkpoint.sync(0),
        lambda: checkpoint.save(tmp_path / "ckpt", timeout=0),
        lambda: checkpoint.write(tmp_path / "other", blocking=False, timeout=0),
    ):
        with pytest.raises(TimeoutError):
            late()
    assert checkpoint.save_counter == 1
    disk.gate.set()
    checkpoint.sync(60)
    assert handle.done
    assert checkpoint.save(tmp_path / "ckpt").step == 2


def test_another_thread_waits_its_turn(tmp_path: Path) -> None:
    """Two threads that save one program do not share the memory of one save."""
    checkpoint = Checkpoint(w=np.ones(2))
    paths: list[str] = []
    with checkpoint._saves.turn.taken():
        thread = threading.Thread(target=lambda: paths.append(checkpoint.save(tmp_path / "ckpt")))
        thread.start()
        late: list[BaseException] = []

        def save_late() -> None:
            try:
                checkpoint.save(tmp_path / "ckpt", timeout=0)
            except TimeoutError as error:
                late.append(error)

        other = threading.Thread(target=save_late)
        other.start()
        other.join()
        assert len(late) == 1
        assert not paths
    thread.join()
    assert len(paths) == 1


def test_a_restore_waits_for_the_save(tmp_path: Path) -> None:
    """What is being saved can be restored at once; as long as it is told to."""
    disk = GateFS()
    w = np.ones(2)
    checkpoint = Checkpoint(w=w)
    handle = checkpoint.save(tmp_path / "ckpt", blocking=False, store=disk)
    w[:] = 5
    manager = CheckpointManager(checkpoint, tmp_path, 2)
    for wait in (
        checkpoint.restore,
        checkpoint.read,
        lambda _, timeout: manager.restore_or_initialize(timeout=timeout),
    ):
        with pytest.raises(TimeoutError):
            wait(handle.path, timeout=0.01)
    threading.Timer(0.0, disk.gate.set).start()
    checkpoint.restore(handle.path, timeout=60).assert_consumed()
    assert w.tolist() == [1, 1]


def test_without_threads_a_save_is_made_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container at its limit, and while an interpreter ends, from Python 3.12 on; with several data files to sync too."""
    monkeypatch.setattr(threading.Thread, "start", _no_thread)
    handle = Checkpoint(w=np.ones(3 << 20)).save(tmp_path / "ckpt", blocking=False)
    assert handle.done
    assert stored(handle.result())["w"] == [1.0] * (3 << 20)
    tensors = {str(number): np.ones(9) for number in range(5)}
    openckpt.save(tmp_path / "many", tensors, sharding=openckpt.ByGroup(lambda key, spec: key))
    monkeypatch.undo()
    assert len(openckpt.load(tmp_path / "many")) == 5


def _no_thread(self: threading.Thread) -> None:
    raise RuntimeError("can't create new thread at interpreter shutdown")


@pytest.mark.parametrize("number", [1, 10, *range(24, 43, 2)])
@pytest.mark.parametrize("what", ["save", "behind", "manager", "restore"])
def test_a_handler_saves_nothing_that_is_in_between(tmp_path: Path, what: str, number: int) -> None:
    """Nor does it wait for ever for the save under it; what it was told ends that save, and the next one is as ever."""
    w = np.zeros(2)
    checkpoint = Checkpoint(w=w)
    path = checkpoint.save(tmp_path / "ckpt")
    manager = CheckpointManager(checkpoint, tmp_path / "managed", 2)
    work: dict[str, Callable[[], object]] = {
        "save": lambda: checkpoint.save(tmp_path / "ckpt"),
        "behind": lambda: checkpoint.write(tmp_path / "other", blocking=False),
        "manager": manager.save,
        "restore": lambda: checkpoint.restore(path),
    }
    w += 1
    with pytest.raises(ConflictError) as caught:
        checkpoint.save(tmp_path / "ckpt", store=AtCall(number, work[what]))
    assert caught.value.code == "training.nested"
    for value in (2, 3):  # also where the checkpoint was there already
        w[:] = value
        assert stored(checkpoint.save(tmp_path / "ckpt"))["w"] == [value] * 2
    assert not list(tmp_path.glob("*openckpt*"))


# -- errors -------------------------------------------------------------------------------------------------------------


def full_disk() -> FaultyFS:
    return FaultyFS(DISK, fail_at=5, error=errno.ENOSPC)


def test_a_failure_is_raised_by_the_next_save_once(tmp_path: Path) -> None:
    """That one saves nothing; its successor does, under a number of its own."""
    checkpoint = Checkpoint(w=np.ones(2))
    handle = checkpoint.save(tmp_path / "ckpt", blocking=False, store=full_disk())
    assert handle.wait(60)
    with pytest.raises(OSError, match="No space") as caught:
        checkpoint.save(tmp_path / "ckpt")
    assert any("ckpt-1 in the background" in note for note in caught.value.__notes__)
    assert [entry.name for entry in tmp_path.iterdir()] == []
    assert checkpoint.save(tmp_path / "ckpt").step == 2
    assert repr(handle).endswith("failed>")


@pytest.mark.parametrize("ask", [SaveHandle.result, lambda handle: handle.checkpoint.sync()], ids=["result", "sync"])
def test_a_failure_that_was_heard_is_not_raised_again(tmp_path: Path, ask: Any) -> None:
    """The handle raises it whenever it is asked."""
    checkpoint = Checkpoint(w=np.ones(2))
    handle: Any = checkpoint.save(tmp_path / "ckpt", blocking=False, store=full_disk())
    handle.checkpoint = checkpoint
    for _ in range(2 if ask is SaveHandle.result else 1):
        with pytest.raises(OSError, match="No space"):
            ask(handle)
    assert checkpoint.save(tmp_path / "ckpt").step == 2


def test_what_cannot_be_saved_is_refused_at_the_call(tmp_path: Path) -> None:
    """And not counted."""
    checkpoint = Checkpoint(w=np.ones(2), thing=threading.Lock())
    with pytest.raises(UnsupportedError):
        checkpoint.save(tmp_path / "ckpt", blocking=False)
    assert checkpoint.save_counter == 0


def test_a_number_that_is_taken_is_said_as_ever(tmp_path: Path) -> None:
    """With the code of the blocking save."""
    Checkpoint(w=np.ones(2)).save(tmp_path / "ckpt")
    with pytest.raises(ConflictError) as caught:
        Checkpoint(w=np.ones(2)).save(tmp_path / "ckpt", blocking=False).result(60)
    assert caught.value.code == "training.exists"


PROGRAM = """
import errno, numpy as np, openckpt, threading
from openckpt.testing import CallFS, FaultyFS
from openckpt.storage.disk import DISK
main = threading.current_thread()
class Late(CallFS):
    def around(self, call, do):
        main.join() if call.number == 1 else None   # nothing happens before the main thread has ended
        return do()
"""


def test_a_program_that_ends_waits(tmp_path: Path) -> None:
    """Until the checkpoint is whole and listed."""
    ended = child(
        PROGRAM + "openckpt.Checkpoint(w=np.ones(9)).save('run/ckpt', blocking=False, store=Late(DISK))", tmp_path
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    assert stored(openckpt.latest_checkpoint(tmp_path / "run") or "")["w"] == [1.0] * 9


def test_a_program_that_ends_says_what_failed(tmp_path: Path) -> None:
    """Every failure that nobody has heard, of all its Checkpoints."""
    program = PROGRAM + (
        "bad = lambda: FaultyFS(DISK, fail_at=5, error=errno.ENOSPC)\n"
        "for name in 'ab':\n"
        "    openckpt.Checkpoint(w=np.ones(9)).save(f'{name}/ckpt', blocking=False, store=bad())\n"
    )
    ended = child(program, tmp_path)
    assert "the save of a/ckpt-1" in ended.stderr
    assert "the save of b/ckpt-1" in ended.stderr
    assert ended.stderr.count("No space left") >= 2
    assert ended.returncode == 120


@pytest.mark.parametrize(
    ("end", "output"),
    [("", "said at the end\n"), ("sys.exit(3)", "said at the end\n"), ("sys.stdout = None", ""), ("handle.wait()", "said at the end\n")],
    ids=["end", "exit", "no output", "failed before"],
)  # fmt: skip
def test_the_exit_status_says_that_a_save_was_lost(tmp_path: Path, end: str, output: str) -> None:
    """Python's own for a program that could not write what it had to; what others do at the end is done."""
    program = PROGRAM + (
        "import atexit, sys\n"
        "atexit.register(lambda: print('said at the end', flush=True))\n"
        "store = FaultyFS(DISK, fail_at=5, error=errno.ENOSPC)\n"
        "handle = openckpt.Checkpoint(w=np.ones(9)).save('run/ckpt', blocking=False, store=store)\n"
    )
    ended = child(program + end, tmp_path)
    assert (ended.returncode, ended.stdout) == (120, output)
    assert "No space left" in ended.stderr
    heard = child(program + "try: handle.result()\nexcept OSError: pass", tmp_path)
    assert (heard.returncode, heard.stdout, heard.stderr) == (0, "said at the end\n", "")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_a_worker_process_says_what_failed(tmp_path: Path) -> None:
    """multiprocessing ends its forks without `atexit`; the parent sees it by the exit code."""
    program = (
        PROGRAM
        + """
import multiprocessing
def work(name, store):
    openckpt.Checkpoint(w=np.ones(9)).save(name, blocking=False, store=store)
for name, store in (("run/whole", None), ("run/lost", FaultyFS(DISK, fail_at=5, error=errno.ENOSPC))):
    process = multiprocessing.get_context("fork").Process(target=work, args=(name, store))
    process.start()
    process.join()
    print(process.exitcode, flush=True)
"""
    )
    ended = child(program, tmp_path)
    assert ended.stdout == "0\n120\n"
    assert ended.stderr.count("No space left") == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_a_fork_has_no_part_in_the_save(tmp_path: Path) -> None:
    """It may save for itself at once; what its parent saves it cannot wait for."""
    program = """
import os, sys, numpy as np, openckpt, threading, warnings
warnings.simplefilter("ignore")
from openckpt.testing import CallFS
from openckpt.storage.disk import DISK
gate = threading.Event()
class Gate(CallFS):
    def around(self, call, do):
        gate.wait()
        return do()
ckpt = openckpt.Checkpoint(w=np.ones(9))
handle = ckpt.save("run/ckpt", blocking=False, store=Gate(DISK))
pid = os.fork()
if pid == 0:
    try:
        handle.wait(5)
    except openckpt.ConflictError as error:
        print(error.code, flush=True)
    print(ckpt.save("child/ckpt", blocking=False).result(50), flush=True)
    os._exit(0)
os.waitpid(pid, 0)
gate.set()
print(handle.result(50))
"""
    ended = child(program, tmp_path)
    assert ended.stderr == ""
    assert ended.stdout.split() == ["training.forked", "child/ckpt-2", "run/ckpt-1"]


# -- the manager --------------------------------------------------------------------------------------------------------


def test_a_manager_saves_in_the_background(tmp_path: Path) -> None:
    """Step, manifest and retention are as ever when it is done; the latest is the latest that is whole."""
    disk = GateFS()
    disk.gate.set()
    w = np.zeros(2)
    manager = CheckpointManager(Checkpoint(w=w), tmp_path, 2, store=disk)
    for number in range(4):
        w[:] = number
        handle = manager.save(blocking=False, metrics={"loss": number})
        assert handle is not None
        w[:] = -1
    manager.sync(60)
    disk.gate.clear()
    late = manager.save(blocking=False)
    assert late is not None
    assert manager.latest_checkpoint == handle.path
    with pytest.raises(TimeoutError):
        manager.save(timeout=0)
    disk.gate.set()
    assert late.result(60).step == 5
    assert [step.step for step in manager.steps] == [4, 5]
    assert sorted(path.name for path in tmp_path.glob("*.index")) == ["ckpt-4.index", "ckpt-5.index"]
    assert stored(handle.path)["w"] == [3, 3]
    assert CheckpointManager(Checkpoint(w=w), tmp_path, 2).latest_checkpoint == late.path


def test_a_process_that_does_not_write_has_its_handle_at_once(tmp_path: Path) -> None:
    """With the same path as the primary's."""
    manager = CheckpointManager(Checkpoint(w=np.ones(2)), tmp_path, 2, is_primary=False)
    handle = manager.save(blocking=False)
    assert handle is not None
    assert handle.result(0) == str(tmp_path / "ckpt-1")
    assert not list(tmp_path.iterdir())
