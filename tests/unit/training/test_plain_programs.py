"""Plain Python and NumPy programs: under which keys their values are stored, that all comes back, and what is refused by name."""

from __future__ import annotations

import collections
import dataclasses
import enum
import functools
import logging
import pathlib
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np
import pytest

import openckpt
from openckpt.errors import MismatchError, UnsupportedError
from openckpt.training import Checkpoint

SUFFIX = "/.ATTRIBUTES/VARIABLE_VALUE"


class Thing:
    """An object with the attributes that it is given."""

    def __init__(self, **attributes: Any) -> None:
        self.__dict__.update(attributes)


class Pair(NamedTuple):
    """Two."""

    first: Any
    second: Any


@dataclasses.dataclass
class Open:
    """A dataclass whose fields can be set."""

    weight: Any
    epoch: int = 0
    _hidden: Any = None


@dataclasses.dataclass(frozen=True)
class Frozen:
    """One whose fields cannot."""

    weight: Any
    epoch: int = 0


@dataclasses.dataclass
class Trainer:
    """One with attributes that are no fields."""

    lr: float

    def __post_init__(self) -> None:
        self.weight = np.zeros(2)


class Mode(enum.StrEnum):
    """Text of a few kinds."""

    TRAIN = "train"
    TEST = "test"


class Slotted:
    """Attributes without a dict, its base's too."""

    __slots__ = ("_hidden", "a", "unset")


class Extended(Slotted):
    """More of them."""

    __slots__ = "b"

    def __init__(self, a: Any, b: Any) -> None:
        self.a, self.b = a, b


class Locked:
    """Sets nothing that it is told to."""

    def __init__(self, **attributes: Any) -> None:
        self.__dict__.update(attributes)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"{name} cannot be set")


def keys_of(path: str) -> list[str]:
    with openckpt.open(path) as ckpt:
        return [key for key in ckpt if key != "_CHECKPOINTABLE_OBJECT_GRAPH"]


def round_trip(tmp_path: Path, saved: Any, program: Any) -> Any:
    """Save one value and restore it into another of its kind; return what is there then."""
    path = Checkpoint(x=saved).write(tmp_path / "ckpt")
    checkpoint = Checkpoint(x=program)
    checkpoint.restore(path, partial=True)
    return checkpoint.x


# -- names --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("program", "keys"),
    [
        (np.ones(2), [""]),
        ({"a": 1, "b": 2.5}, ["/a", "/b"]),
        ({1: 1, (2, 3): 2}, ["/(2, 3)", "/1"]),
        ({"a.b": 1, "c/d": 2, ".ATTRIBUTES": 3, "": 4}, ["/", "/..ATTRIBUTES", "/a..b", "/c.Sd"]),
        ([1, [2, 3]], ["/0", "/1/0", "/1/1"]),
        ((1, (2.0,)), ["/0", "/1/0"]),
        (Pair(1, Pair(2, 3)), ["/first", "/second/first", "/second/second"]),
        (Thing(b=1, a=2, _private=3), ["/a", "/b"]),
        (Open(1.0, 3, _hidden=4), ["/epoch", "/weight"]),
        (Trainer(0.1), ["/lr", "/weight"]),
        (Extended(1, 2), ["/a", "/b"]),
        (collections.OrderedDict(z=1, y=2), ["/y", "/z"]),
        (collections.defaultdict(list, q=[1]), ["/q/0"]),
    ],
)
def test_every_value_is_stored_under_its_way(tmp_path: Path, program: Any, keys: list[str]) -> None:
    """Attributes, fields, keys and indices, escaped as TensorFlow does."""
    assert sorted(keys_of(Checkpoint(x=program).write(tmp_path / "ckpt"))) == sorted(f"x{key}{SUFFIX}" for key in keys)


def test_two_keys_of_one_name_are_refused(tmp_path: Path) -> None:
    """1 and "1" would be one key of the checkpoint."""
    with pytest.raises(UnsupportedError) as caught:
        Checkpoint(x={1: 1, "1": 2}).write(tmp_path / "ckpt")
    assert caught.value.code == "training.same-name"


def test_an_object_on_two_ways_is_stored_once(tmp_path: Path) -> None:
    """Under the shorter way; a number on two ways is two values."""
    array = np.ones(3)
    path = Checkpoint(deep=Thing(inner=[array]), x=array, number=5, other=5).write(tmp_path / "ckpt")
    assert keys_of(path) == [f"number{SUFFIX}", f"other{SUFFIX}", f"x{SUFFIX}"]


def test_objects_may_know_each_other(tmp_path: Path) -> None:
    """Cycles are walked once, and restored."""
    parent = Thing(w=np.array([1.0, 2.0]))
    parent.child = Thing(parent=parent, v=np.array([3.0]))
    path = Checkpoint(parent=parent).write(tmp_path / "ckpt")
    parent.w[:], parent.child.v[:] = 0, 0
    Checkpoint(parent=parent).read(path).assert_consumed()
    assert (parent.w.tolist(), parent.child.v.tolist()) == ([1.0, 2.0], [3.0])


# -- values -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("saved", "program"),
    [
        (3, 0),
        (-(1 << 63), 0),
        (1 << 63, 0),
        (2.5, 0.0),
        (True, False),
        (1 + 2j, 0j),
        (np.float32(1.5), np.float32(0)),
        (np.int8(-3), np.int8(0)),
        (np.bool_(True), np.bool_(False)),
        (ml_dtypes.bfloat16(1.5), ml_dtypes.bfloat16(0)),
        ("text", ""),
        ("", "text"),
        (b"\x00\xff", b""),
        (None, "something"),
        ("something", None),
        (Mode.TRAIN, Mode.TEST),
        (0.5, None),
        (7, None),
        (True, None),
        (np.float32(1.5), None),
    ],
)
def test_a_value_takes_the_place_of_another_of_its_type(tmp_path: Path, saved: Any, program: Any) -> None:
    """In a list, a dict, a tuple, an attribute, or below the Checkpoint itself."""
    path = Checkpoint(x=saved, li=[saved], di={"k": saved}, tu=(saved,), at=Thing(k=saved)).write(tmp_path / "ckpt")
    checkpoint = Checkpoint(x=program, li=[program], di={"k": program}, tu=(program,), at=Thing(k=program))
    items, mapping, thing = checkpoint.li, checkpoint.di, checkpoint.at

    checkpoint.read(path).assert_consumed()

    assert (checkpoint.li, checkpoint.di, checkpoint.at) == (items, mapping, thing)
    for found in (checkpoint.x, items[0], mapping["k"], checkpoint.tu[0], thing.k):
        assert type(found) is type(saved)
        assert found == saved


def test_an_array_takes_the_place_of_none(tmp_path: Path) -> None:
    """An average that begins with the first step: None in a new program, an array in the file."""
    path = Checkpoint(x={"average": np.arange(3.0)}).write(tmp_path / "ckpt")
    x: dict[str, Any] = {"average": None}
    status = Checkpoint(x=x).read(path)
    assert x["average"].tolist() == [0.0, 1.0, 2.0]
    assert (status.assert_consumed().report.bound, status.report.variables) == (1, 1)


def test_text_that_is_no_member_is_refused_before_anything_changes(tmp_path: Path) -> None:
    """The file has another program's text."""
    w = np.zeros(1)
    path = Checkpoint(mode="sleep", w=np.ones(1)).write(tmp_path / "ckpt")
    with pytest.raises(MismatchError) as caught:
        Checkpoint(mode=Mode.TEST, w=w).read(path)
    assert caught.value.code == "training.mismatch"
    assert w[0] == 0


@pytest.mark.parametrize(
    ("saved", "program"), [(True, 0), (1, False), (2j, 0.0), (np.ones(2), 0), ("text", 1), (1, "text")]
)
def test_a_value_of_another_type_is_refused(tmp_path: Path, saved: Any, program: Any) -> None:
    """A number is no bool, no array, no text."""
    path = Checkpoint(x=saved, y=1).write(tmp_path / "ckpt")
    checkpoint = Checkpoint(x=program, y=0)
    if isinstance(saved, str) or isinstance(program, str):
        status = checkpoint.read(path, partial=True)  # text has another attribute, so nothing is bound
        with pytest.raises(AssertionError):
            status.assert_consumed()
    else:
        with pytest.raises(MismatchError) as caught:
            checkpoint.read(path)
        assert caught.value.code == "training.mismatch"
        assert checkpoint.y == 0
    assert checkpoint.x is program


@pytest.mark.parametrize(
    "dtype",
    ["float32", "float64", "float16", "bfloat16", "int8", "uint64", "bool", "complex64", "int4", "float8_e4m3fn"],
)
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 3)])
def test_arrays_are_restored_in_place(tmp_path: Path, dtype: str, shape: tuple[int, ...]) -> None:
    """Every type and rank; the array stays the same object."""
    values = np.arange(int(np.prod(shape))).reshape(shape).astype(np.dtype(getattr(ml_dtypes, dtype, dtype)))
    program = np.zeros_like(values)
    assert round_trip(tmp_path, values, program) is program
    np.testing.assert_array_equal(program, values)


def strided() -> Any:
    return np.zeros((4, 6), np.float32)[::2, ::3]


@pytest.mark.parametrize(
    "program",
    [
        strided(),
        np.zeros((2, 2), ">f4"),
        np.asfortranarray(np.zeros((2, 2), np.float32)),
        np.zeros((2, 2), np.float32).view(np.matrix),
        np.zeros((4, 4), np.float32)[1:3, 2:],
    ],
    ids=["strided", "big-endian", "fortran", "matrix", "a part of another"],
)
def test_arrays_of_every_layout_are_restored_in_place(tmp_path: Path, program: Any) -> None:
    """Whether or not a file can be read straight into them."""
    values = np.array([[1, 2], [3, 4]], np.float32)
    assert round_trip(tmp_path, values, program) is program
    assert program.tolist() == values.tolist()


def test_an_array_that_cannot_be_written_is_replaced(tmp_path: Path) -> None:
    """By a new one, in what holds it; the old one keeps its values."""
    program = np.zeros(3)
    program.flags.writeable = False
    found = round_trip(tmp_path, np.arange(3.0), program)
    assert found is not program
    assert (found.tolist(), program.tolist()) == ([0.0, 1.0, 2.0], [0.0, 0.0, 0.0])


def test_arrays_of_text_come_back(tmp_path: Path) -> None:
    """As object arrays of bytes."""
    program = np.array([b"", b""], object)
    assert round_trip(tmp_path, np.array(["naïve", b"\x00"], object), program) is program
    assert program.tolist() == ["naïve".encode(), b"\x00"]


@pytest.mark.parametrize(
    ("values", "program", "stays"),
    [
        (np.array(["naïve", "x"]), np.array(["", "abcde"]), True),
        (np.array(["naïve", "x"]), np.array(["ab", "c"]), False),
        (np.array([b"\xff", b"long"]), np.array([b"12345", b""]), True),
        (np.array([b"\xff", b"long"]), np.array([b"1", b"2"]), False),
        (np.array(["naïve", "x"]), np.array(["", ""], np.dtypes.StringDType()), True),
        (np.array(["naïve", "x"], object), np.array(["", ""], object), True),
        (np.array(["naïve", ""]), np.array(["", "longer"])[::-1], True),
    ],
    ids=["text", "longer text", "bytes", "longer bytes", "strings", "objects", "strided"],
)
def test_text_stays_text_and_whole(tmp_path: Path, values: Any, program: Any, stays: bool) -> None:
    """An array whose elements are too short makes way for another one: nothing is cut off."""
    found = round_trip(tmp_path, [values], [program])[0]
    assert found.tolist() == values.tolist()
    assert found.dtype.kind == program.dtype.kind
    assert (found is program) is stays


def test_what_cannot_be_changed_is_rebuilt_up_to_what_can(tmp_path: Path) -> None:
    """Tuples in tuples in a frozen dataclass in a list: the list is the same one, with new things in it."""
    array = np.zeros(2)

    def make(number: int) -> Any:
        return [Frozen((Pair(number, array), {"n": number}), epoch=number)]

    program = make(0)
    path = Checkpoint(x=make(7)).write(tmp_path / "ckpt")
    Checkpoint(x=program).read(path).assert_consumed()
    assert program[0].weight[0].first == 7
    assert program[0].weight[1] == {"n": 7}
    assert program[0].epoch == 7
    assert program[0].weight[0].second is array


@dataclasses.dataclass(frozen=True)
class Computed:
    """Has a field that is no argument, and an argument that is no field."""

    epoch: int
    unused: dataclasses.InitVar[int]
    twice: int = dataclasses.field(init=False, default=0)

    def __post_init__(self, unused: int) -> None:
        object.__setattr__(self, "twice", 2 * self.epoch)


@dataclasses.dataclass(frozen=True, slots=True)
class Tight:
    """Has no dict."""

    epoch: int


@pytest.mark.parametrize(
    "make",
    [lambda n: Computed(n, 0), Tight, lambda n: Locked(epoch=n)],
    ids=["computed", "slots", "own __setattr__"],
)
def test_an_object_whose_attributes_cannot_be_set_is_copied(tmp_path: Path, make: Callable[[int], Any]) -> None:
    """However it is made: the copy has the stored values, and the old object its own."""
    program = make(0)
    found = round_trip(tmp_path, make(7), program)
    assert (type(found), found.epoch, program.epoch) == (type(program), 7, 0)
    assert getattr(found, "twice", 14) == 14


def test_a_root_that_cannot_be_changed_has_a_successor(tmp_path: Path) -> None:
    """The Checkpoint has it as ``root``."""
    path = Checkpoint((1, np.ones(2))).write(tmp_path / "ckpt")
    array = np.zeros(2)
    checkpoint = Checkpoint((0, array))
    checkpoint.read(path).assert_consumed()
    assert checkpoint.root == (1, array)
    assert checkpoint.root[1] is array
    assert array.tolist() == [1.0, 1.0]


# -- state that is one piece --------------------------------------------------------------------------------------------


def drawn(generator: Any) -> Any:
    draw = generator.random_raw if isinstance(generator, np.random.BitGenerator) else generator.random
    return [draw() for _ in "1234"]


@pytest.mark.parametrize(
    "make",
    [
        random.Random,
        np.random.default_rng,
        np.random.RandomState,
        lambda seed: np.random.Generator(np.random.MT19937(seed)),
        lambda seed: np.random.Generator(np.random.Philox(seed)),
        lambda seed: np.random.Generator(np.random.SFC64(seed)),
        np.random.PCG64,
    ],
    ids=["random", "PCG64", "RandomState", "MT19937", "Philox", "SFC64", "bits"],
)
def test_random_generators_go_on_where_they_were(tmp_path: Path, make: Callable[[int], Any]) -> None:
    """The numbers after a restore are those after the save."""
    generator, other = make(1), make(2)
    drawn(generator)
    path = Checkpoint(rng=generator).write(tmp_path / "ckpt")
    expected = drawn(generator)
    Checkpoint(rng=other).read(path).assert_consumed()
    assert drawn(other) == expected


@pytest.mark.parametrize("module", [random, np.random], ids=["random", "numpy.random"])
def test_a_module_stands_for_its_generator(tmp_path: Path, module: Any) -> None:
    """Data sets draw from it."""
    path = Checkpoint(rng={"global": module}).write(tmp_path / "ckpt")
    checkpoint = Checkpoint(rng={"global": module})
    expected = drawn(module)
    checkpoint.read(path).assert_consumed()
    assert drawn(module) == expected
    assert checkpoint.rng["global"] is module


def test_a_generator_of_another_kind_is_refused_before_anything_changes(tmp_path: Path) -> None:
    """The state of one is none of the other's."""
    path = Checkpoint(rng=np.random.Generator(np.random.MT19937(1)), w=np.ones(1)).write(tmp_path / "ckpt")
    w = np.zeros(1)
    with pytest.raises(MismatchError) as caught:
        Checkpoint(rng=np.random.default_rng(2), w=w).read(path)
    assert caught.value.code == "training.mismatch"
    assert w[0] == 0


class Stateful:
    """State by ``state_dict``, as schedulers and data loaders have it."""

    def __init__(self, **state: Any) -> None:
        self.state = state

    def state_dict(self) -> dict[str, Any]:
        return self.state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.state = state


def test_a_state_dict_comes_back_with_its_types(tmp_path: Path) -> None:
    """Tuples, bytes, numbers that JSON lacks, keys that are no text; arrays beside it; more or fewer of them than before."""
    state = {
        "epoch": 3,
        "best": (0.5, float("inf")),
        "seen": {1: b"\x00", "!odd": None},
        "order": np.arange(5),
        "deep": [{"a": np.ones(2, np.float32)}],
        "big": 1 << 100,
    }
    program = Stateful(order=np.zeros(1), other=np.zeros(2))
    status = Checkpoint(x=program).read(Checkpoint(x=Stateful(**state)).write(tmp_path / "ckpt"))
    found = program.state
    assert found.keys() == state.keys()
    assert found["order"].tolist() == [0, 1, 2, 3, 4]
    assert found["deep"][0]["a"].dtype == np.float32
    assert {name: found[name] for name in ("epoch", "best", "seen", "big")} == {
        name: state[name] for name in ("epoch", "best", "seen", "big")
    }
    assert type(found["best"]) is tuple
    status.assert_consumed()


@pytest.mark.parametrize(
    "array",
    [np.array(["naïve", ""]), np.array([b"\xff", b""]), np.array("text"), np.zeros((0, 2), "U3"), np.array(["a"], np.dtypes.StringDType())],
    ids=["text", "bytes", "one", "none", "strings"],
)  # fmt: skip
def test_text_in_a_state_dict_stays_text(tmp_path: Path, array: Any) -> None:
    """An array of it too, also when the state is put back because another object refuses its own."""
    program = Stateful(names=array)
    path = Checkpoint(a=program).write(tmp_path / "ckpt")
    program.state = {"names": np.array(["other"])}
    Checkpoint(a=program).read(path).assert_consumed()
    found = program.state["names"]
    assert found.tolist() == array.tolist() and found.shape == array.shape
    assert found.dtype.kind == ("S" if array.dtype.kind == "S" else "U")

    class Refuses(Stateful):
        def load_state_dict(self, state: dict[str, Any]) -> None:
            raise RuntimeError("not this one")

    with pytest.raises(RuntimeError):
        Checkpoint(a=program, b=Refuses(x=1)).read(
            Checkpoint(a=Stateful(names=np.array(["z"])), b=Stateful(x=1)).write(path)
        )
    assert program.state["names"].tolist() == array.tolist()


# -- what is refused ----------------------------------------------------------------------------------------------------


class Colour(enum.Enum):
    """A member is no value of a checkpoint."""

    RED = 1


class Frame:
    """Has its values where nobody sees them, as data frames do."""

    def __init__(self) -> None:
        self._values = [1.0]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
        return np.array(self._values, dtype)


class Window(collections.deque[int]):
    """A class of the program's own has a dict, and its base what matters."""


@pytest.mark.parametrize(
    "value",
    [
        random.SystemRandom(),
        Frame(),
        Window([1, 2]),
        pathlib.PurePosixPath("/x"),
        {1, 2},
        object(),
        iter([]),
        Colour.RED,
        1 << 64,
        np.datetime64("2020-01-01"),
        np.zeros(2, "M8[s]"),
        np.zeros(2, [("a", "f4")]),
        np.ma.masked_array([1, 2], [0, 1]),
        Stateful(loader=object()),
        Stateful(masked=np.ma.masked_array([1, 2], [0, 1])),
        len,
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_no_checkpoint_holds_is_refused_by_name(tmp_path: Path, value: Any) -> None:
    """Never pickled, never left out; nothing is written."""
    with pytest.raises(UnsupportedError) as caught:
        Checkpoint(net=Thing(w=np.ones(2)), bag={"it": value}).write(tmp_path / "ckpt")
    assert caught.value.code in ("training.not-trackable", "training.not-plain")
    assert list(tmp_path.iterdir()) == []
    assert caught.value.where.key == "(root).bag.it"


def test_methods_and_private_attributes_are_no_state(tmp_path: Path) -> None:
    """Functions, classes and modules in attributes and fields are code; types and loggers are no state either."""
    thing = Thing(w=1, f=len, g=functools.partial(len), h=lambda: 0, cls=int, mod=np, _lock=object())
    thing.dtype, thing.log = np.dtype("float32"), logging.getLogger("training")
    assert keys_of(Checkpoint(x=thing, y=Open(len)).write(tmp_path / "ckpt")) == [f"x/w{SUFFIX}", f"y/epoch{SUFFIX}"]
