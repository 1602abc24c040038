"""Delta saves: every step is whole by itself, nothing is written twice without need, and what is shared is said."""

from __future__ import annotations

import errno
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest

import openckpt
from openckpt import Checkpoint
from openckpt.errors import NotFoundError, UnsupportedError
from openckpt.formats.crc import crc32c
from openckpt.formats.dual import index_of_dual, parse_dual, plan_dual
from openckpt.formats.safetensors_header import read_header
from openckpt.storage.disk import DISK
from openckpt.testing import Call, CallFS, FaultyFS

T = TypeVar("T")
VALUE = "/.ATTRIBUTES/VARIABLE_VALUE"


class NoLinks(CallFS):
    """A disk that gives no data file a second name."""

    def __init__(self, code: int = errno.EPERM) -> None:
        super().__init__(DISK)
        self._code = code

    def around(self, call: Call, do: Callable[[], T]) -> T:
        if call.name == "link" and ".data-" in call.path:
            raise OSError(self._code, os.strerror(self._code))
        return do()


def stored(path: str) -> dict[str, Any]:
    return {key.removesuffix(VALUE): value.tolist() for key, value in openckpt.load(path).items() if key[0] != "_"}


def codes(path: str) -> list[str]:
    with openckpt.open(path) as checkpoint:
        return [finding.code for finding in checkpoint.validate() if finding.code != "bundle.safetensors-header"]


def remove(path: str) -> None:
    for file in Path(path).parent.glob(f"{Path(path).name}.*"):
        file.unlink()


def disk_use(directory: Path) -> int:
    """Return the bytes of all files, one with several names once."""
    return sum({(stat.st_dev, stat.st_ino): stat.st_size for stat in map(os.stat, directory.iterdir())}.values())


class Program:
    """Tensors of several sizes, of which a test changes some."""

    def __init__(self) -> None:
        sizes = (900, 300, 200, 100, 50, 3, 1)
        self.w = {f"t{number}": np.full(size, float(number)) for number, size in enumerate(sizes)}
        self.epoch = 0
        self.checkpoint = Checkpoint(w=self.w, epoch=0)

    def save(self, directory: Path, **options: Any) -> Any:
        return self.checkpoint.save(directory / "ckpt", delta=True, **options)

    def values(self) -> dict[str, Any]:
        return {f"w/{name}": array.tolist() for name, array in self.w.items()}


def test_what_has_not_changed_is_not_written_again(tmp_path: Path) -> None:
    """It is linked; the first save is full, and says why; the file is whole without the one before."""
    program = Program()
    first = program.save(tmp_path)
    assert (first.linked_nbytes, bool(first.why_full)) == (0, True)
    program.w["t1"] += 1
    second = program.save(tmp_path)
    assert second.linked_nbytes > 0.7 * second.nbytes
    assert second.why_full == ""
    assert disk_use(tmp_path) < 1.5 * first.nbytes
    remove(first)
    assert program.values().items() <= stored(second).items()
    assert codes(second) == ["dual.superseded"]
    assert openckpt.diagnose(second).valid


def test_a_linked_file_that_counts_whole_is_no_finding(tmp_path: Path) -> None:
    """A frozen part lies in a data file of its own, where nothing is ever superseded; slots do too."""
    parts = {"encoder": np.ones(300), "head": np.ones(30)}
    checkpoint = Checkpoint(model=parts, n=0)
    checkpoint.save(tmp_path / "ckpt", delta=True, frozen=["model/encoder"])
    for _ in range(3):
        parts["head"] += 1
        saved = checkpoint.save(tmp_path / "ckpt", delta=True, frozen=["model/encoder"])
        assert saved.linked_nbytes > 2400
        assert codes(saved) == []
        assert stored(saved)["model/head"] == parts["head"].tolist()


def test_what_is_declared_frozen_is_believed_from_the_second_time_on(tmp_path: Path) -> None:
    """Not hashed and not copied then: that is what the declaration is for. A restore ends it."""
    encoder = np.ones(300)
    checkpoint = Checkpoint(encoder=encoder, n=0)
    old = checkpoint.save(tmp_path / "ckpt", delta=True)
    encoder += 1
    for blocking in (True, False, False):  # declared now: it is looked at
        saved: Any = checkpoint.save(tmp_path / "ckpt", delta=True, frozen=["encoder"], blocking=blocking)
        saved = saved if blocking else saved.result(60)
        assert stored(saved)["encoder"] == [2.0] * 300
    encoder += 1  # a lie
    lied: Any = checkpoint.save(tmp_path / "ckpt", delta=True, frozen=["encoder"], blocking=False)
    assert stored(lied.result(60))["encoder"] == [2.0] * 300
    checkpoint.restore(old)
    saved = checkpoint.save(tmp_path / "ckpt", delta=True, frozen=["encoder"], blocking=False).result(60)
    assert stored(saved)["encoder"] == [1.0] * 300


def test_a_frozen_name_that_is_none_is_refused_at_the_call(tmp_path: Path) -> None:
    """A typing error would cost the whole saving, silently."""
    checkpoint = Checkpoint(encoder=np.ones(3))
    checkpoint.write(tmp_path / "one", delta=True, frozen="encoder")  # one name is one name, not seven letters
    for blocking in (True, False):
        with pytest.raises(NotFoundError) as caught:
            checkpoint.write(tmp_path / "ckpt", delta=True, frozen=["encode"], blocking=blocking)
        assert caught.value.code == "training.nothing-frozen"


@pytest.mark.parametrize("code", [errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK, errno.EXDEV])
def test_without_links_a_save_is_full_and_says_so(tmp_path: Path, code: int) -> None:
    """And the file of the step before stays where it is."""
    program = Program()
    store = NoLinks(code)
    first = program.save(tmp_path, store=store)
    second = program.save(tmp_path, store=store)
    assert second.linked_nbytes == 0
    assert "hard link" in second.why_full
    assert stored(second).items() >= program.values().items() <= stored(first).items()


@pytest.mark.parametrize(
    ("code", "again"), [(errno.EPERM, 0), (errno.EOPNOTSUPP, 0), (errno.EMLINK, 1), (errno.EXDEV, 1)]
)
def test_a_disk_without_links_is_tried_once(tmp_path: Path, code: int, again: int) -> None:
    """Later saves there write everything once, not a part of it in vain first; one file that has too many names is another matter."""
    program, store = Program(), NoLinks(code)
    for _ in range(2):
        program.save(tmp_path, store=store)
    before = sum(call.name == "link" and ".data-" in call.path for call in store.calls)
    third = program.save(tmp_path, store=store)
    tried = sum(call.name == "link" and ".data-" in call.path for call in store.calls)
    assert tried - before == again
    assert "hard link" in third.why_full
    assert program.values().items() <= stored(third).items()
    elsewhere = [program.save(tmp_path / "other") for _ in range(2)]
    assert elsewhere[1].linked_nbytes


def test_files_that_are_gone_or_others_are_not_linked(tmp_path: Path) -> None:
    """Whatever has their names now."""
    program = Program()
    first = program.save(tmp_path)
    remove(first)
    second = program.save(tmp_path)
    assert second.linked_nbytes == 0
    data = next(tmp_path.glob("ckpt-2.data*"))
    content = bytearray(data.read_bytes())
    content[-100] ^= 1
    data.unlink()
    data.write_bytes(content)
    third = program.save(tmp_path)
    assert (third.linked_nbytes, "gone or others" in third.why_full) == (0, True)
    assert program.values().items() <= stored(third).items()


def test_mostly_dead_files_are_not_linked(tmp_path: Path) -> None:
    """What still counts in them is written again."""
    program = Program()
    program.save(tmp_path)
    program.w["t0"] += 1
    saved = program.save(tmp_path)
    assert (saved.linked_nbytes, "more than half" in saved.why_full) == (0, True)


def test_what_stays_lies_apart_from_the_first_full_save_on(tmp_path: Path) -> None:
    """A full save that more than half had changed for puts the rest into a file of its own, and that one is linked whole ever after."""
    program = Program()
    program.save(tmp_path)
    for number in range(4):
        program.w["t0"] += 1
        saved = program.save(tmp_path)
        assert bool(saved.why_full) == (number == 0)
        assert program.values().items() <= stored(saved).items()
        assert codes(saved) == []  # nothing in it is superseded
    assert saved.linked_nbytes > 8 * 654


def test_a_full_save_of_changed_values_is_one_file(tmp_path: Path) -> None:
    """Little that stays is not worth a file."""
    program = Program()
    program.save(tmp_path)
    for name in list(program.w)[:-1]:
        program.w[name] += 1
    saved = program.save(tmp_path)
    assert saved.why_full
    assert len(list(tmp_path.glob("ckpt-2.data*"))) == 1


@pytest.mark.parametrize("between", ["plain", "undeclared", "background", "failed"])
def test_a_save_that_does_not_declare_it_ends_the_belief(tmp_path: Path, between: str) -> None:
    """Whatever kind of save, and whatever became of it: what is declared again after that is looked at again."""
    encoder = np.ones(300)
    checkpoint = Checkpoint(encoder=encoder, n=0)
    for _ in range(2):
        checkpoint.save(tmp_path / "ckpt", delta=True, frozen=["encoder"])
    encoder += 1
    if between == "failed":
        with pytest.raises(OSError, match="Input/output"):
            checkpoint.write(tmp_path / "lost", delta=True, store=FaultyFS(DISK, fail_at=12))
    elif between == "background":
        checkpoint.write(tmp_path / "other", blocking=False).result(60)
    else:
        checkpoint.write(tmp_path / "other", delta=between == "undeclared")
    saved = checkpoint.save(tmp_path / "ckpt", delta=True, frozen=["encoder"])
    assert stored(saved)["encoder"] == [2.0] * 300


def test_a_value_that_changes_behind_its_write_is_written_by_the_next_save(tmp_path: Path) -> None:
    """The program must not do that; what it did then is not remembered as saved."""
    state = {"w": np.zeros(300), "more": np.zeros(900)}

    class Meddling(CallFS):
        def around(self, call: Call, do: Callable[[], T]) -> T:
            if call.name == "sync" and state["w"][0] == 0:
                state["w"] += 1
            return do()

    checkpoint, store = Checkpoint(state=state), Meddling(DISK)
    checkpoint.save(tmp_path / "ckpt", delta=True, store=store)
    saved = checkpoint.save(tmp_path / "ckpt", delta=True, store=store)
    assert saved.linked_nbytes
    assert stored(saved)["state/w"] == [1.0] * 300


def test_no_step_has_more_than_eight_data_files(tmp_path: Path) -> None:
    """Each is a file to open for every reader: of more, what lies in the one that holds the least is written again."""
    state = {f"t{number:02}": np.zeros(1000 + 10 * number) for number in range(14)}
    checkpoint = Checkpoint(state=state)
    counts = []
    for number in range(14):
        saved = checkpoint.save(tmp_path / "ckpt", delta=True)
        counts.append(len(list(tmp_path.glob(f"{Path(saved).name}.data*"))))
        assert bool(saved.linked_nbytes) == (number > 0)
        state[f"t{number:02}"] += 1
    assert counts[:9] == [1, 2, 3, 4, 5, 6, 7, 8, 8]
    assert max(counts) == 8


def test_overwriting_links_the_files_that_it_replaces(tmp_path: Path) -> None:
    """`write` under one name: their old names go, their bytes stay."""
    program = Program()
    for number in range(5):
        program.w["t3"] += 1
        path = program.checkpoint.write(tmp_path / "latest", delta=True)
        assert bool(path.linked_nbytes) == (number > 0)
        assert program.values().items() <= stored(path).items()
    assert disk_use(tmp_path) < 2.5 * 8 * 1554
    assert codes(path) == ["dual.superseded"]


def resumed(directory: Path, **options: Any) -> tuple[Program, str]:
    """Return a program of a new process that has restored the only step of a run."""
    saved = Program().checkpoint.save(directory / "ckpt", **options)
    program = Program()
    for array in program.w.values():
        array[:] = -1
    program.checkpoint.restore(saved).assert_consumed()
    return program, saved


@pytest.mark.parametrize("delta", [False, True])
def test_the_first_save_behind_a_restore_links_what_it_restored(tmp_path: Path, delta: bool) -> None:
    """Where it is as it lies there: a program that was killed writes nothing twice either. However that step was saved."""
    program, restored = resumed(tmp_path, delta=delta)
    program.w["t1"] += 1
    saved = program.save(tmp_path)
    assert saved.linked_nbytes > 0.7 * saved.nbytes
    assert saved.why_full == ""
    assert codes(saved) == ["dual.superseded"]
    remove(restored)
    assert program.values().items() <= stored(saved).items()
    program.w["t2"] += 1
    saved = program.save(tmp_path)
    assert saved.linked_nbytes
    assert program.values().items() <= stored(saved).items()


def test_what_counts_whole_behind_a_restore_needs_no_mark(tmp_path: Path) -> None:
    """What a file was written with is known from its header."""
    parts = {"encoder": np.ones(300), "head": np.ones(30)}
    first = Checkpoint(model=parts).save(tmp_path / "ckpt", delta=True, frozen="model/encoder")
    checkpoint = Checkpoint(model=parts)
    checkpoint.restore(first)
    parts["head"] += 1
    saved = checkpoint.save(tmp_path / "ckpt", delta=True, frozen="model/encoder")
    assert saved.linked_nbytes > 2400
    assert codes(saved) == []


def test_values_that_changed_behind_a_restore_are_written(tmp_path: Path) -> None:
    """In the last of many bytes, and where the program declares them frozen too: that is the first time."""
    program, _ = resumed(tmp_path)
    program.w["t0"][-1] += 1
    saved = program.save(tmp_path, frozen=["w/t0", "w/t1"])
    assert program.values().items() <= stored(saved).items()


@pytest.mark.parametrize("harm", ["gone", "replaced", "damaged", "another index", "TensorFlow's layout"])
def test_a_restored_step_that_is_not_what_it_was_is_not_linked(tmp_path: Path, harm: str) -> None:
    """The save is full, and whole."""
    program, restored = resumed(tmp_path)
    data, index = tmp_path / "ckpt-1.data-00000-of-00001", tmp_path / "ckpt-1.index"
    content = bytearray(data.read_bytes())
    if harm == "gone":
        remove(restored)
    elif harm == "replaced":
        data.write_bytes(bytes(len(content)))
    elif harm == "damaged":
        for at in range(1000, len(content), 600):
            content[at] ^= 1
        data.write_bytes(content)
    elif harm == "another index":
        index.write_bytes(index.read_bytes()[:-9])
    else:
        values = openckpt.load(restored)
        openckpt.save(restored, values, layout="tensorflow", overwrite=True)
    saved = program.save(tmp_path)
    assert (saved.linked_nbytes, bool(saved.why_full)) == (0, True)
    assert program.values().items() <= stored(saved).items()
    assert codes(saved) == []


def test_a_checksum_of_the_index_that_is_wrong_is_not_passed_on(tmp_path: Path) -> None:
    """The bytes are those of the program, and the index beside them is another one's."""
    state = {"a": np.zeros(400), "b": np.ones(400)}
    first = Checkpoint(state=state).save(tmp_path / "ckpt")
    checkpoint = Checkpoint(state=state)
    checkpoint.restore(first)
    data = next(tmp_path.glob("ckpt-1.data*"))
    content, zeros, ones = data.read_bytes(), state["a"].tobytes(), state["b"].tobytes()
    at, other = content.index(zeros), content.index(ones)
    content = bytearray(content)
    content[at : at + 3200], content[other : other + 3200] = ones, zeros
    data.write_bytes(content)
    state["a"][:], state["b"][:] = 1, 0
    saved = checkpoint.save(tmp_path / "ckpt", delta=True)
    assert saved.linked_nbytes == 0
    assert openckpt.diagnose(saved).valid


@pytest.mark.parametrize("is_resumed", [False, True])
def test_values_of_the_same_checksum_are_told_apart(tmp_path: Path, is_resumed: bool) -> None:
    """A CRC-32C does not see its own polynomial, here late in a tensor; one in four billion changes looks like that by accident."""
    state = {"w": np.zeros(8000, np.uint8), "more": np.zeros(9000)}
    polynomial = int(f"{0x11EDC6F41:033b}"[::-1], 2).to_bytes(5, "little")
    before, checkpoint = crc32c(state["w"]), Checkpoint(state=state)
    first = checkpoint.save(tmp_path / "ckpt", delta=True)
    if is_resumed:
        checkpoint = Checkpoint(state=state)
        checkpoint.restore(first)
    state["w"][7000:7005] = list(polynomial)
    assert crc32c(state["w"]) == before
    saved = checkpoint.save(tmp_path / "ckpt", delta=True)
    assert saved.linked_nbytes
    assert stored(saved)["state/w"] == state["w"].tolist()


def test_a_restored_step_of_another_directory_is_not_shared(tmp_path: Path) -> None:
    """It is not this run's: somebody may change it in place."""
    program, _ = resumed(tmp_path / "other")
    saved = program.save(tmp_path / "run")
    assert (saved.linked_nbytes, bool(saved.why_full)) == (0, True)
    here, _ = resumed(tmp_path / "run2")
    (tmp_path / "alias").symlink_to(tmp_path / "run2")
    assert here.save(tmp_path / "alias").linked_nbytes


def test_a_part_that_was_restored_is_linked(tmp_path: Path) -> None:
    """What the file holds beside it does not count."""
    program, restored = resumed(tmp_path)
    for array in program.w.values():
        array += 1
    program.checkpoint.restore(restored, select="w/t0")
    saved = program.save(tmp_path)
    assert saved.linked_nbytes
    assert program.values().items() <= stored(saved).items()


def test_saves_without_delta_are_as_ever(tmp_path: Path) -> None:
    """One data file, no mark; and a delta save goes on from the last delta save."""
    program = Program()
    program.save(tmp_path)
    plain = program.checkpoint.save(tmp_path / "ckpt")
    assert (plain.linked_nbytes, plain.why_full) == (0, "")
    assert len(list(tmp_path.glob("ckpt-2.data*"))) == 1
    assert program.save(tmp_path).linked_nbytes > 0


def run_of_steps(directory: Path, seed: int) -> tuple[dict[str, dict[str, Any]], int]:
    """Save 30 steps with random changes, letting go of random ones; returns what the others must hold, and a full save's size."""
    chance = random.Random(seed)
    program = Program()
    program.w["t0"][0] = seed
    full = program.checkpoint.write(directory / "full").nbytes
    remove(directory / "full")  # type: ignore[arg-type]
    kept: dict[str, dict[str, Any]] = {}
    for _ in range(30):
        for array in program.w.values():
            if chance.random() < 0.25:
                array[chance.randrange(array.size)] += 1
        handle = program.save(directory, blocking=chance.random() < 0.5)
        saved = handle if isinstance(handle, str) else handle.result(60)
        kept[saved] = program.values()
        assert len(list(directory.glob(f"{Path(saved).name}.data*"))) <= 8
        while len(kept) > 4:
            gone = chance.choice(list(kept)[:-1])
            remove(gone)
            del kept[gone]
        # The index and the headers weigh as much as such small tensors, in every step.
        assert disk_use(directory) <= 2.5 * len(kept) * full
    return kept, full


@pytest.mark.parametrize("seed", range(3))
def test_every_step_of_a_run_is_whole(tmp_path: Path, seed: int) -> None:
    """Whichever of the others are deleted, the doctor finds nothing wrong, and the disk holds little more than full saves would."""
    kept, _ = run_of_steps(tmp_path, seed)
    for path, values in kept.items():
        assert values.items() <= stored(path).items()
        assert set(codes(path)) <= {"dual.superseded"}


@pytest.mark.interop
def test_stock_tensorflow_restores_every_step(tmp_path: Path, tf: Any) -> None:
    """It opens eight data files as it opens one, and nothing is left over."""
    kept, _ = run_of_steps(tmp_path, 7)
    assert max(len(list(tmp_path.glob(f"{Path(path).name}.data*"))) for path in kept) > 2
    for path, values in kept.items():
        w = {name.removeprefix("w/"): tf.Variable(tf.zeros(len(value), tf.float64)) for name, value in values.items()}
        tf.train.Checkpoint(w=w, epoch=tf.Variable(0, dtype=tf.int64)).restore(path).assert_consumed()
        assert {f"w/{name}": variable.numpy().tolist() for name, variable in w.items()} == values


@pytest.mark.interop
def test_stock_tensorflow_restores_every_step_of_a_keras_training(tmp_path: Path, keras: Any, tf: Any) -> None:
    """With the older steps gone: a layer that does not train, found by its hash; Adam's slots change at every step."""
    keras.utils.set_random_seed(1)
    layers = [keras.layers.Dense(40, trainable=False), keras.layers.Dense(4), keras.layers.Dense(1)]
    model = keras.Sequential([keras.Input((60,)), *layers])
    model.compile(optimizer="adam", loss="mse")
    checkpoint = Checkpoint(model=model, optimizer=model.optimizer)
    steps = {}
    for number in range(4):
        model.train_on_batch(np.full((2, 60), number, np.float32), np.ones((2, 1)))
        saved = checkpoint.save(tmp_path / "ckpt", delta=True)
        assert (saved.linked_nbytes > 4 * 60 * 40) == (number > 0)
        steps[saved] = [variable.numpy() for variable in (*model.variables, *model.optimizer.variables)]
    stock = tf.train.Checkpoint(model=model, optimizer=model.optimizer)

    def check(path: str) -> None:
        variables = [*model.variables, *model.optimizer.variables]
        for variable in variables:
            variable.assign(variable * 0)
        stock.restore(path).assert_consumed()
        assert all(np.array_equal(was, now) for was, now in zip(steps[path], variables, strict=True))

    *older, newest = steps
    for path in steps:
        check(path)
    for path in older:
        remove(path)
        check(newest)


def test_whichever_steps_are_deleted_the_others_are_whole(tmp_path: Path) -> None:
    """All sets of steps of a run in which files are shared by up to five of them, in the order of time and the reverse."""
    program = Program()
    steps = {}
    for number in range(5):
        program.w[f"t{number % 4 + 1}"] += 1
        saved = program.save(tmp_path / "run")
        steps[saved] = program.values()
    for number in range(2 ** len(steps) - 1):
        copy = tmp_path / str(number)
        copy.mkdir()
        for path in (tmp_path / "run").iterdir():
            os.link(path, copy / path.name)
        copies = {str(copy / Path(path).name): values for path, values in steps.items()}
        doomed = [path for at, path in enumerate(copies) if number >> at & 1]
        for path in doomed if number % 2 else reversed(doomed):
            openckpt.remove_checkpoint(path)
        for path in copies.keys() - doomed:
            assert copies[path].items() <= stored(path).items()
            assert openckpt.diagnose(path).valid


def test_damage_of_a_shared_file_names_every_step_that_has_it(tmp_path: Path) -> None:
    """And no other one; a step that shares nothing is whole."""
    program = Program()
    whole = program.checkpoint.save(tmp_path / "ckpt")
    steps = []
    for _ in range(3):
        program.w["t5"] += 1
        steps.append(program.save(tmp_path))
    shared = max(tmp_path.glob("ckpt-2.data*"), key=lambda path: path.stat().st_size)
    content = bytearray(shared.read_bytes())
    content[len(content) // 2] ^= 1
    shared.write_bytes(content)  # in place: one file, three names
    report = openckpt.diagnose(steps[1])
    (finding,) = [finding for finding in report.all_findings() if finding.code == "run.shared-damage"]
    assert "'ckpt-2', 'ckpt-4' have this" in finding.message
    assert openckpt.diagnose(whole).valid
    assert "run.shared-damage" not in [finding.code for finding in openckpt.diagnose(whole).all_findings()]


def test_safetensors_of_a_delta_step(tmp_path: Path) -> None:
    """`convert` writes what the step holds, and nothing that it has superseded."""
    program = Program()
    program.save(tmp_path)
    program.w["t1"] += 5
    saved = program.save(tmp_path)
    target = tmp_path / "out.safetensors"
    openckpt.convert(saved, target)
    assert stored(str(target)) == stored(saved)
    assert stored(saved).items() >= program.values().items()
    whole = program.checkpoint.write(tmp_path / "whole")
    assert target.stat().st_size < whole.nbytes < saved.nbytes


def test_the_mark_of_a_delta_step(tmp_path: Path) -> None:
    """It is in the header of the first data file, under its checksum; the index cannot be made again from headers."""
    header = plan_dual([], superseded=(1, 4)).header({})
    shard = read_header_of(header, tmp_path)
    assert shard.superseded == (1, 4)
    with pytest.raises(UnsupportedError) as caught:
        index_of_dual([shard])
    assert caught.value.code == "dual.superseded"
    assert plan_dual([]).header({}) == plan_dual([], superseded=()).header({})
    assert parse_dual(b"{}", {}, {}, "x") is None


@pytest.mark.parametrize("mark", ["[]", "[0]", "[2,1]", "[1,1]", "1", "[true]", "[1.0]", "[-1]", "{}", '["1"]'])
def test_a_mark_that_makes_no_sense_is_refused(tmp_path: Path, mark: str) -> None:
    """With the checksum of the header right."""
    from openckpt.formats.crc import crc32c

    header = plan_dual([], superseded=(1, 4)).header({})
    text = header[8:].replace(b"[1,4]", mark.replace('"', '\\"').encode().ljust(5))
    at = text.index(b'header\\":\\"') + len(b'header\\":\\"')
    text = text[:at] + b"00000000" + text[at + 8 :]
    text = text[:at] + b"%08x" % crc32c(text) + text[at + 8 :]
    with pytest.raises(openckpt.CorruptionError) as caught:
        read_header_of(len(text).to_bytes(8, "little") + text, tmp_path)
    assert caught.value.code == "dual.metadata"


def read_header_of(data: bytes, directory: Path) -> Any:
    (directory / "x").write_bytes(data)
    source = DISK.open(str(directory / "x"))
    try:
        return read_header(source).dual
    finally:
        source.close()
