"""`Checkpoint`: names, root, counter, files and manifest."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import openckpt
from openckpt import Checkpoint
from openckpt.errors import ConflictError, MismatchError, UnsupportedError
from openckpt.storage.disk import DISK
from openckpt.testing import FaultyFS

VALUE = "/.ATTRIBUTES/VARIABLE_VALUE"


class Thing:
    """An object with the attributes that it is given."""

    def __init__(self, **attributes: Any) -> None:
        self.__dict__.update(attributes)


def edges(path: str) -> list[tuple[str, int]]:
    """Return the children of the root, in order."""
    with openckpt.open(path) as ckpt:
        graph = ckpt.graph
        assert graph is not None
        return [(child.local_name, child.node_id) for child in graph.nodes[0].children]


def stored(path: str) -> dict[str, Any]:
    return {key.removesuffix(VALUE): value.tolist() for key, value in openckpt.load(path).items() if key[0] != "_"}


# -- names --------------------------------------------------------------------------------------------------------------


def test_children_are_sorted_and_the_counter_is_last(tmp_path: Path) -> None:
    """As in tf.train.Checkpoint; later ones come in the order in which they came."""
    checkpoint = Checkpoint(zebra=1, ant=2)
    assert [name for name, _ in edges(checkpoint.save(tmp_path / "ckpt"))] == ["ant", "zebra", "save_counter"]
    checkpoint.middle = 3
    assert [name for name, _ in edges(checkpoint.save(tmp_path / "ckpt"))][:3] == ["ant", "zebra", "middle"]


def test_children_are_attributes() -> None:
    """They can be read, set, made and deleted."""
    checkpoint = Checkpoint(epoch=3)
    checkpoint.epoch += 1
    checkpoint.other = "x"
    assert (checkpoint.epoch, checkpoint.other) == (4, "x")
    del checkpoint.epoch
    assert not hasattr(checkpoint, "epoch")
    with pytest.raises(AttributeError):
        del checkpoint.epoch


@pytest.mark.parametrize(
    "name", ["save", "restore", "write", "read", "save_counter", "_hidden", "restored_step", "__dict__"]
)
def test_names_of_its_own_are_no_names_of_children(name: str) -> None:
    """They would be methods one moment and values the next."""
    with pytest.raises(ValueError, match="a name of Checkpoint's own"):
        Checkpoint(**{name: 1})


# -- root ---------------------------------------------------------------------------------------------------------------


def test_a_root_is_node_0_and_hangs_below_itself(tmp_path: Path) -> None:
    """As ``root``, sorted among the keywords, which come after its own children (formats 6.3)."""
    root = Thing(w=np.ones(2), bias=np.ones(1))
    path = Checkpoint(root, opt=Thing(lr=0.1), zz=3).save(tmp_path / "ckpt")
    assert [name for name, _ in edges(path)] == ["w", "bias", "opt", "root", "zz", "save_counter"]
    assert dict(edges(path))["root"] == 0
    assert stored(path) == {"w": [1.0, 1.0], "bias": [1.0], "opt/lr": 0.1, "zz": 3, "save_counter": 1}


def test_a_keyword_that_the_root_has_already_is_no_second_edge(tmp_path: Path) -> None:
    """The same object may be named again; another one of that name is refused."""
    array = np.ones(2)
    root = Thing(w=array, number=3)
    path = Checkpoint(root, w=array, number=3).save(tmp_path / "ckpt")
    assert [name for name, _ in edges(path)] == ["w", "number", "root", "save_counter"]
    with pytest.raises(ValueError, match="another child called 'w'"):
        Checkpoint(root, w=np.ones(2))


def test_a_keyword_that_the_root_has_is_replaced_in_both_places(tmp_path: Path) -> None:
    """The number is new on the root and on the Checkpoint."""
    path = Checkpoint(Thing(number=7), number=7).write(tmp_path / "ckpt")
    root = Thing(number=1)
    number = root.number
    checkpoint = Checkpoint(root, number=number)
    checkpoint.read(path).assert_consumed()
    assert (root.number, checkpoint.number) == (7, 7)


def test_what_is_no_object_cannot_be_a_root() -> None:
    """A set has nothing that could be named."""
    with pytest.raises(ValueError, match="cannot be the root"):
        Checkpoint({1, 2})


def test_an_array_can_be_the_root(tmp_path: Path) -> None:
    """Its key begins with the slash."""
    array = np.arange(3)
    path = Checkpoint(array).write(tmp_path / "ckpt")
    assert list(stored(path)) == [""]
    array[:] = 0
    Checkpoint(array).read(path).assert_consumed()
    assert array.tolist() == [0, 1, 2]


def test_a_checkpoint_in_a_checkpoint_is_its_children(tmp_path: Path) -> None:
    """Not its Python attributes."""
    inner = Checkpoint(Thing(w=1), extra=2)
    path = Checkpoint(inner=inner).write(tmp_path / "ckpt")
    assert stored(path) == {"inner/extra": 2, "inner/root/w": 1}
    other = Checkpoint(inner=Checkpoint(Thing(w=0), extra=0))
    other.read(path).assert_consumed()
    assert (other.inner.root.w, other.inner.extra) == (1, 2)


# -- counter ------------------------------------------------------------------------------------------------------------


def test_every_save_counts_and_the_number_is_in_the_name_and_in_the_file(tmp_path: Path) -> None:
    """And in the manifest, which names the newest only."""
    checkpoint = Checkpoint(x=1)
    paths = [checkpoint.save(tmp_path / "run" / "ckpt") for _ in range(3)]
    assert [Path(path).name for path in paths] == ["ckpt-1", "ckpt-2", "ckpt-3"]
    assert [path.step for path in paths] == [1, 2, 3]
    assert [stored(path)["save_counter"] for path in paths] == [1, 2, 3]
    assert openckpt.latest_checkpoint(tmp_path / "run") == str(tmp_path / "run" / "ckpt-3")
    state = openckpt.get_checkpoint_state(tmp_path / "run")
    assert state is not None
    assert list(state.all_model_checkpoint_paths) == [str(tmp_path / "run" / "ckpt-3")]


def test_a_restored_counter_goes_on(tmp_path: Path) -> None:
    """The next number is the file's and one."""
    first = Checkpoint(x=1)
    first.save(tmp_path / "ckpt")
    path = first.save(tmp_path / "ckpt")
    second = Checkpoint(x=0)
    second.restore(path).assert_consumed()
    assert (second.save_counter, second.restored_step) == (2, 2)
    assert second.save(tmp_path / "ckpt") == str(tmp_path / "ckpt-3")


def test_after_read_the_first_save_goes_on_counting(tmp_path: Path) -> None:
    """``read`` makes no counter, but the file's is not forgotten: TensorFlow restores it when it is made."""
    first = Checkpoint(x=1)
    first.save(tmp_path / "ckpt")
    path = first.save(tmp_path / "ckpt")
    second = Checkpoint(x=0)
    second.read(path)
    third = second.save(tmp_path / "ckpt")
    assert third == str(tmp_path / "ckpt-3")
    assert stored(third)["save_counter"] == 3


def test_write_makes_no_counter_and_no_manifest(tmp_path: Path) -> None:
    """It is for managers; what it writes again is replaced."""
    checkpoint = Checkpoint(x=1)
    path = checkpoint.write(tmp_path / "here")
    assert stored(path) == {"x": 1}
    checkpoint.x = 2
    assert stored(checkpoint.write(tmp_path / "here")) == {"x": 2}
    assert not (tmp_path / "checkpoint").exists()
    assert checkpoint.save_counter == 0


def test_a_counter_that_began_again_overwrites_nothing(tmp_path: Path) -> None:
    """TensorFlow would: a new program, the old directory, number 1 again."""
    first = Checkpoint(x=1).save(tmp_path / "ckpt")
    fresh = Checkpoint(x=2)
    with pytest.raises(ConflictError) as caught:
        fresh.save(tmp_path / "ckpt")
    assert caught.value.code == "training.exists"
    assert stored(first)["x"] == 1
    assert fresh.save_counter == 0
    fresh.restore(first)
    fresh.save(tmp_path / "ckpt")


def test_a_save_that_fails_does_not_count(tmp_path: Path) -> None:
    """Nor does one of something that cannot be saved."""
    checkpoint = Checkpoint(x=1)
    with pytest.raises(OSError, match="No space"):
        checkpoint.save(tmp_path / "ckpt", store=FaultyFS(DISK, fail_at=3, error=errno.ENOSPC))
    checkpoint.bad = {1, 2}
    with pytest.raises(UnsupportedError):
        checkpoint.save(tmp_path / "ckpt")
    del checkpoint.bad
    assert checkpoint.save(tmp_path / "ckpt") == str(tmp_path / "ckpt-1")


def test_a_restore_that_fails_makes_no_counter(tmp_path: Path) -> None:
    """The next ``write`` has none."""
    checkpoint = Checkpoint(x=1)
    with pytest.raises(openckpt.PathNotFoundError):
        checkpoint.restore(tmp_path / "nothing-1")
    assert stored(checkpoint.write(tmp_path / "ckpt")) == {"x": 1}


@pytest.mark.parametrize("make", [lambda: np.int64(4), lambda: np.array(4), lambda: 4], ids=["scalar", "array", "int"])
def test_a_root_counts_with_its_own_counter(tmp_path: Path, make: Any) -> None:
    """Where it has a child ``save_counter``, that is the counter."""
    root = Thing(w=1, save_counter=make())
    checkpoint = Checkpoint(root)
    assert checkpoint.save_counter == 4
    path = checkpoint.save(tmp_path / "ckpt")
    assert path == str(tmp_path / "ckpt-5")
    assert stored(path)["save_counter"] == 5
    assert int(root.save_counter) == 5
    assert [name for name, _ in edges(path)].count("save_counter") == 1


# -- restoring ----------------------------------------------------------------------------------------------------------


def test_the_newer_restore_wins(tmp_path: Path) -> None:
    """And the older one's status still holds: its objects have values from a later restore."""
    checkpoint = Checkpoint(x=np.zeros(1))
    paths = []
    for number in (1, 2):
        checkpoint.x[:] = number
        paths.append(checkpoint.save(tmp_path / "ckpt"))
    older = checkpoint.restore(paths[0])
    newer = checkpoint.restore(paths[1])
    assert checkpoint.x.tolist() == [2]
    older.assert_consumed()
    newer.assert_consumed()


def test_a_model_saved_below_a_name_does_not_fit_the_model_itself(tmp_path: Path) -> None:
    """TensorFlow restores the counter and says nothing; here nothing is restored, and the names are told."""
    path = Checkpoint(model=Thing(w=np.ones(2))).save(tmp_path / "ckpt")
    model = Thing(w=np.zeros(2))
    with pytest.raises(MismatchError) as caught:
        Checkpoint(model).restore(path)
    assert caught.value.code == "training.nothing-matched"
    assert "'model'" in str(caught.value)
    assert "'w'" in str(caught.value)
    assert model.w.tolist() == [0, 0]
    Checkpoint(model).restore(path, partial=True)


def test_a_program_without_variables_waits_for_them(tmp_path: Path) -> None:
    """There is nothing that could have been forgotten."""
    path = Checkpoint(model=Thing(w=np.ones(2))).save(tmp_path / "ckpt")
    Checkpoint(model=Thing()).restore(path)


def test_a_file_without_a_graph_is_refused_with_the_way_out(tmp_path: Path) -> None:
    """Values by name have no places."""
    path = openckpt.save(tmp_path / "ckpt", {"x": np.ones(2)})
    with pytest.raises(openckpt.CheckpointError):
        Checkpoint(x=np.zeros(3)).restore(path)


def test_a_program_that_holds_its_old_values_does_not_keep_them_alive(tmp_path: Path) -> None:
    """Neither a save nor the status of a restore holds on to values that the program has replaced."""
    import gc
    import weakref

    class Value(np.ndarray):  # type: ignore[type-arg]
        """An array that can be watched."""

    def make(number: int) -> Any:
        array = np.full(3, float(number)).view(Value)
        array.flags.writeable = False
        return array

    gc.collect()
    gc.disable()
    try:
        checkpoint = Checkpoint(state=(make(1), [make(2)]))
        path = checkpoint.save(tmp_path / "ckpt")
        watched = [weakref.ref(checkpoint.state[0]), weakref.ref(checkpoint.state[1][0])]
        status = checkpoint.restore(path)
        assert [ref() for ref in watched] == [None, None]
        status.assert_consumed()
    finally:
        gc.enable()


def test_what_a_notebook_shows_says_what_it_is(tmp_path: Path) -> None:
    """A Checkpoint its objects, a manager its checkpoints, a status what was bound."""
    checkpoint = Checkpoint(weights=np.ones(3), step=3)
    manager = openckpt.CheckpointManager(checkpoint, str(tmp_path), 3)
    path = manager.save()
    assert path is not None

    assert repr(checkpoint) == "<Checkpoint(step=3, weights=ndarray), saved 1 times>"
    assert repr(manager) == f"<CheckpointManager of {str(tmp_path)!r}: 1 checkpoints, the latest {str(path)!r}>"
    assert repr(checkpoint.read(path)) == f"<CheckpointLoadStatus {path}: bound 2 of 2 variables>"
    assert repr(Checkpoint(np.ones(3))).startswith("<Checkpoint(ndarray), ")
