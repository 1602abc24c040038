"""A restore that fails has assigned nothing, whatever is wrong: with the file, with the program, or with both."""

from __future__ import annotations

import dataclasses
import errno
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import openckpt
from openckpt.errors import CheckpointError, ConflictError, CorruptionError, MismatchError, NotFoundError
from openckpt.formats.objectgraph import encode_object_graph, parse_object_graph
from openckpt.opening.reader import CheckpointReader
from openckpt.training import Checkpoint
from openckpt.training.leaves import ArrayLeaf
from openckpt.training.tracking import Child, View

GRAPH = "_CHECKPOINTABLE_OBJECT_GRAPH"
VALUE = "/.ATTRIBUTES/VARIABLE_VALUE"
STATE = "/.ATTRIBUTES/py_state"


class Scheduler:
    """State in one piece, with an array; refuses a negative epoch only when it gets it."""

    def __init__(self, epoch: int) -> None:
        self.epoch, self.history = epoch, np.full(3, epoch)

    def state_dict(self) -> dict[str, Any]:
        return {"epoch": self.epoch, "history": self.history}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.epoch = state["epoch"]
        if self.epoch < 0:
            raise ValueError("a negative epoch")
        self.history = state["history"]


@dataclasses.dataclass
class Program:
    """What is restored: arrays, a number, a text, two states; every kind of place."""

    seed: int
    extra: dict[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        seed = self.seed
        self.children = {
            "a": np.full((4, 5), seed, np.float32),
            "big": np.full(400_000, seed, np.float64),
            "bag": {"number": seed, "text": str(seed), "pair": (seed, np.full(2, seed))},
            "early": Scheduler(seed),
            "late": Scheduler(seed),
            "z": np.full(3, seed, np.int64),
            **self.extra,
        }
        self.checkpoint = Checkpoint(**self.children)

    def state(self) -> list[Any]:
        """Return everything that a restore could change."""
        ckpt = self.checkpoint
        return [
            ckpt.a.tolist(),
            float(ckpt.big.sum()),
            ckpt.bag["number"],
            ckpt.bag["text"],
            ckpt.bag["pair"][0],
            ckpt.bag["pair"][1].tolist(),
            ckpt.early.epoch,
            ckpt.early.history.tolist(),
            ckpt.late.epoch,
            ckpt.late.history.tolist(),
            ckpt.z.tolist(),
            ckpt.save_counter,
            ckpt.restored_step,
        ]


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(Program(7).checkpoint.save(tmp_path / "ckpt"))


def rewrite(path: str, change: Callable[[dict[str, Any]], None]) -> None:
    """Write the checkpoint again with other tensors."""
    tensors = openckpt.load(path)
    change(tensors)
    openckpt.save(path, tensors, overwrite=True)


def without(*keys: str) -> Callable[[str], None]:
    return lambda path: rewrite(path, lambda tensors: [tensors.pop(key) for key in keys] and None)


def with_value(key: str, value: Any) -> Callable[[str], None]:
    return lambda path: rewrite(path, lambda tensors: tensors.update({key: value}))


def with_bit_flipped(key: str) -> Callable[[str], None]:
    def damage(path: str) -> None:
        with openckpt.open(path) as ckpt:
            (extent,) = ckpt.locate(key)
        data = bytearray(Path(extent.path).read_bytes())
        data[extent.offset + extent.nbytes - 1] ^= 0x10
        Path(extent.path).write_bytes(data)

    return damage


def cut(path: str) -> None:
    shard = Path(path + ".data-00000-of-00001")
    shard.write_bytes(shard.read_bytes()[:-100])


def gone(path: str) -> None:
    Path(path + ".data-00000-of-00001").unlink()


def bare_graph(path: str) -> None:
    rewrite(path, lambda tensors: tensors.update({GRAPH: b"\xff\xff"}))


FAULTS: dict[str, tuple[Callable[[str], None], type[Exception], str]] = {
    "a key of the graph is absent": (without("a" + VALUE), NotFoundError, "training.missing-keys"),
    "a key of a state's array is absent": (without("late/history" + VALUE), NotFoundError, "training.missing-keys"),
    "another shape": (with_value("z" + VALUE, np.zeros(4, np.int64)), MismatchError, "training.mismatch"),
    "another type": (with_value("z" + VALUE, np.zeros(3, np.int32)), MismatchError, "training.mismatch"),
    "a number of rank 1": (with_value("bag/number" + VALUE, np.zeros(1, np.int64)), MismatchError, "training.mismatch"),
    "a text that is a number": (with_value("bag/text" + STATE, np.int64(3)), MismatchError, "training.mismatch"),
    "a text that is no JSON": (with_value("bag/text" + STATE, b"{"), CorruptionError, "training.bad-state"),
    "a text that is a list": (with_value("bag/text" + STATE, b"[1]"), MismatchError, "training.mismatch"),
    "a state that is no JSON": (with_value("late" + STATE, b"\xff"), CorruptionError, "training.bad-state"),
    "a state of an unknown kind": (with_value("late" + STATE, b'{"!new": 1}'), CorruptionError, "training.bad-state"),
    "a state with an array that is not there": (
        with_value("late" + STATE, b'{"epoch": 1, "history": {"!array": "other"}}'),
        CorruptionError,
        "training.bad-state",
    ),
    "a flipped bit in the first value": (with_bit_flipped("a" + VALUE), CorruptionError, "bundle.crc-mismatch"),
    "a flipped bit in a large value": (with_bit_flipped("big" + VALUE), CorruptionError, "bundle.crc-mismatch"),
    "a flipped bit in the last value": (with_bit_flipped("z" + VALUE), CorruptionError, "bundle.crc-mismatch"),
    "a flipped bit in a state": (with_bit_flipped("late" + STATE), CorruptionError, "bundle.crc-mismatch"),
    "a flipped bit in a state's array": (
        with_bit_flipped("late/history" + VALUE),
        CorruptionError,
        "bundle.crc-mismatch",
    ),
    "a flipped bit in the save counter": (
        with_bit_flipped("save_counter" + VALUE),
        CorruptionError,
        "bundle.crc-mismatch",
    ),
    "a graph that does not parse": (bare_graph, CorruptionError, "graph.does-not-parse"),
    "a graph that is a number": (with_value(GRAPH, np.int64(1)), CorruptionError, "graph.not-a-string"),
    "a data file that was cut": (cut, CorruptionError, "bundle.data-truncated"),
    "a data file that is gone": (gone, CorruptionError, "bundle.shard-missing"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_faulty_file_assigns_nothing(path: str, name: str) -> None:
    """Not one value, not the counter; and the error has its code."""
    damage, kind, code = FAULTS[name]
    damage(path)
    program = Program(3)
    before = program.state()

    with pytest.raises(kind) as caught:
        program.checkpoint.restore(path)

    assert isinstance(caught.value, CheckpointError)
    assert caught.value.code == code
    assert program.state() == before
    assert not hasattr(caught.value, "__notes__")


def test_all_absent_keys_are_named(path: str) -> None:
    """Not only the first."""
    without("a" + VALUE, "z" + VALUE, "late/history" + VALUE)(path)
    with pytest.raises(NotFoundError) as caught:
        Program(3).checkpoint.restore(path)
    assert all(key + VALUE in str(caught.value) for key in ("a", "z", "late/history"))


def test_all_values_that_do_not_fit_are_named(path: str) -> None:
    """Each with both shapes or types."""
    with_value("z" + VALUE, np.zeros(4, np.int64))(path)
    with_value("a" + VALUE, np.zeros((4, 5), np.float64))(path)
    with pytest.raises(MismatchError) as caught:
        Program(3).checkpoint.restore(path)
    message = str(caught.value)
    assert "(root).z: shape (4,) in the file, (3,) in the program" in message
    assert "(root).a: float64 in the file, float32 in the program" in message


class Closed:
    """Holds a number, and takes no new one."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __openckpt_view__(self) -> View:
        from openckpt.training.adapters.plain import as_child

        return View("closed box", [as_child("number", self.number), Child("array", ARRAY)])


ARRAY = np.zeros(2)


@pytest.mark.parametrize("wrap", [lambda box: box, lambda box: (box,), lambda box: {"in": [box]}])
def test_a_number_that_cannot_be_put_back_is_known_before(tmp_path: Path, wrap: Callable[[Any], Any]) -> None:
    """An object that takes no new children is no place for a number."""
    path = Program(7, {"zz": wrap(Closed(7))}).checkpoint.save(tmp_path / "ckpt")
    program = Program(3, {"zz": wrap(Closed(3))})
    before = program.state()
    with pytest.raises(MismatchError) as caught:
        program.checkpoint.restore(path)
    assert caught.value.code == "training.mismatch"
    assert "closed box" in str(caught.value)
    assert program.state() == before


def test_a_state_that_an_object_refuses_is_put_back(tmp_path: Path) -> None:
    """Of the object that raises, and of those that had got theirs before; arrays come after them."""
    saved = Program(7)
    saved.checkpoint.late.epoch = -1
    path = saved.checkpoint.save(tmp_path / "ckpt")
    program = Program(3)
    before = program.state()
    with pytest.raises(ValueError, match="a negative epoch"):
        program.checkpoint.restore(path)
    assert program.state() == before


@pytest.mark.parametrize("number", range(4))
def test_a_read_that_fails_in_the_first_pass_assigns_nothing(
    path: str, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The system's errors, too."""
    from openckpt.storage import local

    calls = 0
    real = local.LocalFile.read_into

    def failing(self: Any, offset: int, target: Any) -> Any:
        nonlocal calls
        if ".data-" in self.path:
            calls += 1
            if calls == number + 1:
                raise OSError(errno.EIO, "disk")
        return real(self, offset, target)

    monkeypatch.setattr(local.LocalFile, "read_into", failing)
    program = Program(3)
    before = program.state()
    with pytest.raises(OSError, match="disk"):
        program.checkpoint.restore(path)
    assert program.state() == before


def test_a_file_that_changes_between_the_passes_is_noticed(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bit that flips after every checksum held: the second checksum sees it, and the error says how far the restore was."""
    real = CheckpointReader.check_many

    def then_damage(self: CheckpointReader, keys: Any) -> None:
        real(self, keys)
        with_bit_flipped("z" + VALUE)(path)

    monkeypatch.setattr(CheckpointReader, "check_many", then_damage)
    program = Program(3)
    with pytest.raises((CorruptionError, ConflictError)) as caught:
        program.checkpoint.restore(path)
    assert caught.value.code in ("bundle.crc-mismatch", "storage.changed")
    assert re.search(r"had been assigned when this happened: .*'\(root\)\.early'", caught.value.__notes__[-1])


def test_an_interrupt_between_two_values_says_what_is_new(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C in the second pass leaves a program that is neither old nor new: it is named how far it came."""
    real = ArrayLeaf.assign

    def interrupted(self: ArrayLeaf, value: Any) -> object:
        if value.size == 3:
            raise KeyboardInterrupt
        return real(self, value)

    monkeypatch.setattr(ArrayLeaf, "assign", interrupted)
    with pytest.raises(KeyboardInterrupt) as caught:
        Program(3).checkpoint.restore(path)
    assert "'(root).a'" in caught.value.__notes__[-1]


def test_a_checkpoint_that_is_replaced_between_the_passes_is_read_as_it_was(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its files are open: another one under its name changes nothing, or is told; never a mixture."""
    real = CheckpointReader.check_many

    def then_replace(self: CheckpointReader, keys: Any) -> None:
        real(self, keys)
        other = Program(9).checkpoint
        other.write(path)

    monkeypatch.setattr(CheckpointReader, "check_many", then_replace)
    program = Program(3)
    try:
        program.checkpoint.restore(path)
    except ConflictError:
        return
    state, expected = program.state(), Program(7).state()
    assert state[:11] == expected[:11]


def test_what_old_writers_marked_as_optional_may_be_absent(path: str) -> None:
    """An attribute with ``optional_restore`` needs no tensor."""

    def mark(tensors: dict[str, Any]) -> None:
        graph = parse_object_graph(tensors[GRAPH].item(), "x")
        nodes = [
            node._replace(
                attributes=tuple(a._replace(optional_restore=a.checkpoint_key == "z" + VALUE) for a in node.attributes)
            )
            for node in graph.nodes
        ]
        tensors[GRAPH] = encode_object_graph(type(graph)(tuple(nodes)))
        del tensors["z" + VALUE]

    rewrite(path, mark)
    program = Program(3)
    with pytest.warns(openckpt.PartialRestoreWarning, match="without a value: '\\(root\\).z'"):
        program.checkpoint.restore(path)
    assert program.checkpoint.z.tolist() == [3, 3, 3]
    assert program.checkpoint.a[0, 0] == 7
