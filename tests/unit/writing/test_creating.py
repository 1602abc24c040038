"""`create`: tensor by tensor, with specs in any order, without them as they come; what goes wrong leaves everything as it was."""

from __future__ import annotations

import errno
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import openckpt
from openckpt import ByGroup, MaxShardSize, MismatchError, NotFoundError, Sliced, TensorSpec, UnsupportedError, Variant
from openckpt.errors import CheckpointError, ConflictError
from openckpt.storage.disk import DISK
from openckpt.testing import CallFS, FaultyFS
from trees import differences, everything, save_tree

LAYOUTS = ("dual", "tensorflow")
SPECS = {
    "a": TensorSpec("float32", (2, 3)),
    "b": TensorSpec("int64", ()),
    "q": TensorSpec("qint8", (4,)),
    "s": TensorSpec("string", (2,)),
    "v": TensorSpec("variant", ()),
    "t": TensorSpec("string", ()),
}
VALUES: dict[str, Any] = {
    "a": np.arange(6, dtype=np.float32).reshape(2, 3),
    "b": 7,
    "q": np.array([-1, 2, 3, 4], np.int8),
    "s": ["one", "three"],
    "v": Variant(b"\x0a\x01x"),
    "t": b"\0" * 300,
}


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def check(prefix: Path) -> None:
    """The checkpoint holds what `VALUES` says."""
    with openckpt.open(prefix) as ckpt:
        assert {key: ckpt.specs[key][:2] for key in ckpt} == {key: spec[:2] for key, spec in SPECS.items()}
        read = {key: value.tolist() for key, value in ckpt.items()}
    assert read == {
        "a": [[0, 1, 2], [3, 4, 5]], "b": 7, "q": [-1, 2, 3, 4], "s": [b"one", b"three"], "v": b"\x0a\x01x", "t": b"\0" * 300,
    }  # fmt: skip
    assert openckpt.diagnose(prefix).valid


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
    "sharding", [None, ByGroup(lambda key, spec: key in "abq"), MaxShardSize(16)], ids=["1", "2", "max"]
)
def test_announced_tensors_come_in_any_order(tmp_path: Path, layout: Any, seed: int, sharding: Any) -> None:
    """Text and variants too, whose size nobody knows before they come."""
    order = random.Random(seed).sample(sorted(VALUES), len(VALUES))
    with openckpt.create(tmp_path / "ckpt", SPECS, layout, sharding=sharding) as writer:
        for key in order:
            writer.add(key, VALUES[key])
        assert writer.result is None and not (tmp_path / "ckpt.index").exists()
    assert writer.result == str(tmp_path / "ckpt")
    check(tmp_path / "ckpt")


def test_without_specs_the_layout_is_tensorflow_s(tmp_path: Path) -> None:
    """To the byte that of a save in the same order."""
    with openckpt.create(tmp_path / "a") as writer:
        for key, value in VALUES.items():
            writer.add(key, value, dtype="qint8" if key == "q" else None)
    check(tmp_path / "a")
    openckpt.save(tmp_path / "b", VALUES, dtypes={"q": "qint8"}, layout="tensorflow")
    for suffix in (".index", ".data-00000-of-00001"):
        assert (tmp_path / f"a{suffix}").read_bytes() == (tmp_path / f"b{suffix}").read_bytes()


def test_with_specs_and_sizes_it_is_what_save_writes(tmp_path: Path) -> None:
    """Where another checkpoint knows the sizes of its text, too."""
    tree = everything()
    save_tree(tmp_path / "a", tree)
    with openckpt.open(tmp_path / "a") as ckpt:
        with openckpt.create(tmp_path / "b", {**ckpt.specs}) as writer:
            for key in sorted(ckpt, reverse=True):
                writer.add(key, ckpt[key])
        assert (tmp_path / "b.index").read_bytes() == (tmp_path / "a.index").read_bytes()
    assert differences(tmp_path / "b", tree) == []


def test_the_order_that_is_quickest(tmp_path: Path) -> None:
    """That of the bytes in the files: the offsets of the finished checkpoint rise along it."""
    specs = {**SPECS, **{f"n{n}": TensorSpec("float32", (n,)) for n in range(20)}}
    for layout in LAYOUTS:
        for sharding in (None, ByGroup(lambda key, spec: spec.dtype)):
            with openckpt.create(tmp_path / "ckpt", specs, layout, sharding=sharding, overwrite=True) as writer:  # type: ignore[arg-type]
                order = writer.order
                for key in order:
                    writer.add(key, VALUES[key] if key in VALUES else np.zeros(specs[key].shape or (), np.float32))
            assert sorted(order) == sorted(specs)
            with openckpt.open(tmp_path / "ckpt") as ckpt:
                places = [(extent.shard, extent.offset) for key in order for extent in ckpt.locate(key)]
            assert places == sorted(places)


@pytest.mark.parametrize("specs", [SPECS, None], ids=["specs", "no specs"])
@pytest.mark.parametrize("size", [3, 5_000, 12 << 20])
def test_a_buffer_may_be_reused_at_once(tmp_path: Path, size: int, specs: Any) -> None:
    """The bytes are with the system when `add` returns; small ones and large ones."""
    announced = {str(n): TensorSpec("uint8", (size,)) for n in range(3)} if specs else None
    buffer = np.empty(size, np.uint8)
    with openckpt.create(tmp_path / "ckpt", announced) as writer:
        for n in range(3):
            buffer[:] = n
            writer.add(str(n), buffer)
        buffer[:] = 99
    for key, value in openckpt.load(tmp_path / "ckpt").items():
        assert np.array_equal(value, np.full(size, int(key), np.uint8))


def test_pieces_may_be_added_where_nothing_was_announced(tmp_path: Path) -> None:
    """As `save` takes them."""
    whole = np.arange(6.0)
    with openckpt.create(tmp_path / "ckpt") as writer:
        writer.add("w", Sliced((6,), {((4, 2),): whole[4:], ((0, 4),): whole[:4]}))
    assert openckpt.load(tmp_path / "ckpt")["w"].tolist() == whole.tolist()


# ------------------------------------------------------------------------------------------------------------- refusals


def spoilt(act: Callable[[Any], object]) -> Callable[[Path], None]:
    """A block in which ``act`` goes wrong and the error is let out."""

    def run(path: Path) -> None:
        with openckpt.create(path / "run" / "ckpt", {"a": SPECS["a"], "s": TensorSpec("string", (1,), 6)}) as writer:
            act(writer)

    return run


A = VALUES["a"]
WRONG: dict[str, tuple[Callable[[Any], object], type[CheckpointError], str]] = {
    "a foreign key": (lambda writer: writer.add("c", A), NotFoundError, "writing.foreign-key"),
    "another type": (lambda writer: writer.add("a", A.astype(np.float64)), MismatchError, "writing.wrong-dtype"),
    "another shape": (lambda writer: writer.add("a", A.T), MismatchError, "writing.wrong-shape"),
    "another size": (lambda writer: writer.add("s", ["longer"]), MismatchError, "writing.wrong-size"),
    "twice": (lambda writer: (writer.add("a", A), writer.add("a", A)), UnsupportedError, "writing.duplicate-key"),
    "pieces": (lambda writer: writer.add("a", Sliced((2, 3), {((0, -1),) * 2: A})), UnsupportedError, "writing.slices"),
    "no text": (lambda writer: writer.add("s", np.array([1], object)), UnsupportedError, "writing.element"),
    "one is missing": (lambda writer: writer.add("a", A), NotFoundError, "writing.missing-keys"),
    "no key": (lambda writer: writer.add("", A), UnsupportedError, "writing.key"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_what_was_not_announced_abandons_the_checkpoint(tmp_path: Path, name: str) -> None:
    """With a code, and nothing is left: no file, no lock, not even the directory."""
    act, kind, code = WRONG[name]
    with pytest.raises(kind) as caught:
        spoilt(act)(tmp_path)
    assert caught.value.code == code
    assert names(tmp_path) == []


def test_missing_tensors_are_named(tmp_path: Path) -> None:
    """All that never came, the first of them by name."""
    with pytest.raises(NotFoundError) as caught, openckpt.create(tmp_path / "ckpt", SPECS) as writer:
        writer.add("b", 7)
    assert "5 tensors" in str(caught.value) and "'a'" in str(caught.value)


SPECS_THAT_ARE_NONE = {
    "a resource": (TensorSpec("resource", ()), "writing.resource"),
    "an unknown type": (TensorSpec("float33", ()), "writing.dtype"),
    "no rank": (TensorSpec("float32", None), "writing.dtype"),
    "a negative size": (TensorSpec("float32", (2, -1)), "writing.dtype"),
    "too few bytes": (TensorSpec("float32", (2,), 7), "writing.wrong-size"),
}


@pytest.mark.parametrize("name", SPECS_THAT_ARE_NONE)
def test_specs_that_no_tensor_has_are_refused(tmp_path: Path, name: str) -> None:
    """By key and code, before a byte is written."""
    spec, code = SPECS_THAT_ARE_NONE[name]
    with (
        pytest.raises(CheckpointError) as caught,
        openckpt.create(tmp_path / "run" / "ckpt", {"fine": SPECS["a"], "bad": spec}),
    ):
        pass
    assert caught.value.code == code and caught.value.where.key == "bad" and names(tmp_path) == []


def test_what_is_no_spec_is_refused(tmp_path: Path) -> None:
    """A shape, a type or nothing in the place of a spec; a pair of type and shape is one."""
    with openckpt.create(tmp_path / "pair", {"w": ("float32", (2, 3))}) as writer:  # type: ignore[dict-item]
        writer.add("w", A)
    for name in names(tmp_path):
        (tmp_path / name).unlink()
    for spec in ((2,), None, "float32", [2, 3], ("a", "b", "c", "d")):
        with pytest.raises(TypeError, match="'w'"):
            openckpt.create(tmp_path / "run" / "ckpt", {"w": spec})  # type: ignore[dict-item]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("shape", [(1 << 50,), (1 << 40, 1 << 40)])
def test_what_the_disk_cannot_hold_is_refused_before_a_file_is_made(tmp_path: Path, shape: tuple[int, ...]) -> None:
    """Sizes follow from type and shape, also where the caller has not said them."""
    fs = CallFS(DISK)
    with pytest.raises(OSError) as caught:
        openckpt.create(tmp_path / "ckpt", {"w": TensorSpec("float32", shape)}, store=fs).__enter__()
    assert caught.value.errno == errno.ENOSPC
    assert "create" not in {call.name for call in fs.calls}
    assert names(tmp_path) == []


def test_specs_may_be_lists_of_numpy_s_integers(tmp_path: Path) -> None:
    """What a caller has at hand; keys may be bytes."""
    specs: Any = {b"a": ("float32", [np.int64(2), 3], None)}
    with openckpt.create(tmp_path / "ckpt", specs) as writer:
        writer.add(b"a", A)
    assert openckpt.load(tmp_path / "ckpt")["a"].tolist() == A.tolist()


@pytest.mark.parametrize("options", [{"layout": "dual"}, {"sharding": MaxShardSize(10)}, {"layout": "other"}])
def test_what_needs_specs_is_refused_without_them(tmp_path: Path, options: Any) -> None:
    """A header in front of the data must be laid out first."""
    with pytest.raises(ValueError):
        openckpt.create(tmp_path / "ckpt", **options)


def test_a_writer_is_used_in_its_block_and_once(tmp_path: Path) -> None:
    """Outside it there is nothing to write to; a second block would mix two checkpoints."""
    writer = openckpt.create(tmp_path / "ckpt")
    with pytest.raises(ValueError):
        writer.add("w", 1)
    with writer:
        writer.add("w", 1)
        with pytest.raises(ValueError), writer:
            pass
    for act in (lambda: writer.add("v", 2), writer.__enter__):
        with pytest.raises(ValueError):
            act()
    assert openckpt.load(tmp_path / "ckpt") == {"w": 1}


def test_two_writers_of_one_prefix(tmp_path: Path) -> None:
    """The second gets a conflict, whatever it asks for; the first is not disturbed."""
    with openckpt.create(tmp_path / "ckpt") as first:
        first.add("w", 1)
        for overwrite in (False, True):
            with pytest.raises(ConflictError) as caught, openckpt.create(tmp_path / "ckpt", overwrite=overwrite):
                pass
            assert caught.value.code == "commit.locked"
    assert openckpt.load(tmp_path / "ckpt") == {"w": 1}
    with pytest.raises(ConflictError) as caught, openckpt.create(tmp_path / "ckpt"):
        pass
    assert caught.value.code == "commit.exists"


# --------------------------------------------------------------------------------------------------------- abandonment


@pytest.mark.parametrize(
    "error", [KeyError("x"), KeyboardInterrupt(), SystemExit(1), OSError(errno.ENOSPC, "full")], ids=repr
)
@pytest.mark.parametrize("specs", [SPECS, None], ids=["specs", "no specs"])
def test_an_error_in_the_block_leaves_nothing(tmp_path: Path, error: BaseException, specs: Any) -> None:
    """And comes out as it is."""
    with pytest.raises(type(error)) as caught, openckpt.create(tmp_path / "run" / "ckpt", specs) as writer:
        writer.add("b", 7)
        raise error
    assert caught.value is error and names(tmp_path) == []


def test_an_error_in_the_block_leaves_what_was_there(tmp_path: Path) -> None:
    """To the byte, with the time of it."""
    openckpt.save(tmp_path / "ckpt", {"w": 1}, update_manifest=True)
    before = {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in tmp_path.iterdir()}
    with pytest.raises(KeyError), openckpt.create(tmp_path / "ckpt", overwrite=True, update_manifest=True) as writer:
        writer.add("w", 2)
        raise KeyError
    assert {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in tmp_path.iterdir()} == before


def test_a_tensor_that_is_refused_may_be_left_out(tmp_path: Path) -> None:
    """Nothing of it was written: not of its text, not of its first piece."""
    bad = np.array(["text", 1], object)
    with openckpt.create(tmp_path / "ckpt") as writer:
        writer.add("a", 1)
        for value in (np.ones(1, "M8[s]"), bad, Sliced((4,), {((0, 2),): ["a", "b"], ((2, 2),): bad})):
            with pytest.raises(UnsupportedError):
                writer.add("b", value)
        writer.add("c", 2)
    assert openckpt.load(tmp_path / "ckpt") == {"a": 1, "c": 2}
    assert openckpt.diagnose(tmp_path / "ckpt").valid


@pytest.mark.parametrize(("call", "size"), [("write", 10), ("write", 20 << 20), ("allocate", 20 << 20)])
def test_an_error_of_the_disk_cannot_be_left_out(tmp_path: Path, call: str, size: int) -> None:
    """A caller who catches it inside the block gets it again at the end: bytes are missing."""

    class Refusing(FaultyFS):
        def around(self, made: Any, do: Any) -> Any:
            if made.name == call and not self.fired and "lock" not in made.path:
                raise self._failure(made)
            return do()

        def write(self, file: Any, offset: int, buffers: Any) -> int:
            made = self._count("write", file.path)
            return self.around(made, lambda: self.store.write(file, offset, buffers))  # type: ignore[no-any-return]

    fs = Refusing(DISK, fail_at=0, error=errno.ENOSPC)
    caught = 0
    with pytest.raises(OSError) as final, openckpt.create(tmp_path / "ckpt", store=fs) as writer:
        for key in ("a", "b"):
            try:
                writer.add(key, np.zeros(size, np.uint8))
            except OSError:
                caught += 1
    assert caught >= 1
    assert final.value.errno == errno.ENOSPC and names(tmp_path) == []
