"""`OrderFS`: every rule is broken once and noticed, and a save in the right order passes."""

from __future__ import annotations

import threading
from collections.abc import Callable

import numpy as np
import pytest

from openckpt.formats.bundle import encode_bundle
from openckpt.storage.writable import OutputFile, WritableStore
from openckpt.testing import FaultyFS, OrderFS, PowerLossFS

OLD = {f"d/{name}": data for name, data in encode_bundle({"w": np.zeros(3)}, "x", shards=1).items()}
NEW = encode_bundle({"v": np.ones(3), "w": np.ones(3)}, "x", shards=2)
SHARDS = ("x.data-00000-of-00002", "x.data-00001-of-00002")


class Saver:
    """An overwriting save of two shards, a step to a call of `run`; a test leaves steps out or turns them round."""

    STEPS = (
        "lock", "data", "sync-data", "name-data", "sync-directory", "index", "sync-index", "name-index", "sync-switch",
        "manifest", "sync-manifest", "name-manifest", "sync-manifest-name", "retire", "unlock",
    )  # fmt: skip

    def __init__(self, fs: WritableStore) -> None:
        self.fs = fs
        self.files: dict[str, OutputFile] = {}

    def run(self, *steps: str) -> None:
        for step in steps:
            what, _, which = step.partition("-")
            if step in ("lock", "unlock", "retire"):
                getattr(self, step)()
            elif what == "sync" and which in ("directory", "switch", "manifest-name"):
                self.fs.sync_directory("d")
            else:
                for number, (name, data) in enumerate(self.parts(which or what)):
                    self.step(what, number, name, data)

    def parts(self, which: str) -> list[tuple[str, bytes]]:
        if which == "data":
            return [(name, NEW[name]) for name in SHARDS]
        return [("x.index", NEW["x.index"])] if which == "index" else [("checkpoint", b'model_checkpoint_path: "x"\n')]

    def step(self, what: str, number: int, name: str, data: bytes) -> None:
        temporary = f"d/{name}.{number}.openckpt-tmp"
        if what == "sync":
            self.fs.sync(self.files[name])
        elif what == "name":
            self.fs.close(self.files[name])
            (self.fs.rename_new if "data" in name else self.fs.rename)(temporary, f"d/{name}")
        else:
            file = self.files[name] = self.fs.create(temporary)
            self.fs.write(file, 0, [data])

    def lock(self) -> None:
        lock = self.fs.try_lock("d/x.openckpt-lock")
        assert lock is not None
        self.files["lock"] = lock

    def unlock(self) -> None:
        self.fs.remove("d/x.openckpt-lock")
        self.fs.close(self.files["lock"])

    def retire(self) -> None:
        self.fs.remove("d/x.data-00000-of-00001")


def without(*steps: str) -> list[str]:
    return [step for step in Saver.STEPS if step not in steps]


def later(step: str, behind: str) -> list[str]:
    steps = without(step)
    steps.insert(steps.index(behind) + 1, step)
    return steps


def rule_broken_by(steps: list[str], fs: OrderFS | None = None) -> str:
    """Return the name of the rule that a run of steps breaks, "" for none."""
    fs = fs or OrderFS(PowerLossFS(OLD))
    try:
        Saver(fs).run(*steps)
        fs.check_end()
    except AssertionError as error:
        assert fs.violations == [str(error)]
        assert fs.history[-1] in str(error)
        return str(error).partition(":")[0]
    return ""


def test_the_right_order_passes() -> None:
    """Every barrier in its place: no rule speaks."""
    assert rule_broken_by(list(Saver.STEPS)) == ""


@pytest.mark.parametrize(
    ("steps", "rule"),
    [
        (without("sync-data"), "names-behind-bytes"),
        (without("sync-index"), "names-behind-bytes"),
        (without("sync-manifest"), "names-behind-bytes"),
        (without("sync-directory"), "index-behind-data"),
        (later("name-data", "name-index"), "index-behind-data"),
        (later("sync-directory", "name-index"), "index-behind-data"),
        (without("sync-switch"), "manifest-behind-index"),
        (later("sync-switch", "name-manifest"), "manifest-behind-index"),
        (later("retire", "sync-index"), "switch-before-removal"),
        (later("retire", "name-index"), "switch-before-removal"),
        (without("sync-manifest-name"), "nothing-left"),
        (without("unlock"), "nothing-left"),
        (without("name-manifest"), "nothing-left"),
    ],
    ids=lambda value: None if isinstance(value, str) else "-".join(s for s in Saver.STEPS if s not in value) or "moved",
)
def test_a_step_left_out_or_too_late_breaks_its_rule(steps: list[str], rule: str) -> None:
    """Each barrier is watched by one rule at least."""
    assert rule_broken_by(steps) == rule


def test_writing_after_the_sync_is_noticed() -> None:
    """A sync covers what was written before it."""
    fs = OrderFS(PowerLossFS(OLD))
    saver = Saver(fs)
    saver.run("lock", "data", "sync-data")
    fs.write(saver.files[SHARDS[0]], 0, [b"x"])
    with pytest.raises(AssertionError, match="names-behind-bytes"):
        saver.run("name-data")


def test_writing_to_a_file_that_has_its_name_is_noticed() -> None:
    """A reader may have it open."""
    fs = OrderFS(PowerLossFS())
    file = fs.create("a.tmp.openckpt-tmp")
    fs.sync(file)
    fs.rename("a.tmp.openckpt-tmp", "a")
    with pytest.raises(AssertionError, match="published-is-final"):
        fs.write(file, 0, [b"x"])


def test_a_file_made_under_its_final_name_may_not_be_written() -> None:
    """As TensorFlow writes its index: whoever looks meanwhile finds half of it."""
    fs = OrderFS(PowerLossFS())
    file = fs.create("x.index")
    with pytest.raises(AssertionError, match="published-is-final"):
        fs.write(file, 0, [b"x"])


def test_replacing_data_that_an_index_needs_is_noticed() -> None:
    """TensorFlow's overwrite: the new data under the names of the old."""
    fs = OrderFS(PowerLossFS({**OLD, "d/t.0.openckpt-tmp": b""}))
    with pytest.raises(AssertionError, match="switch-before-removal"):
        fs.rename("d/t.0.openckpt-tmp", "d/x.data-00000-of-00001")


def test_a_sync_that_was_refused_spoils_the_file() -> None:
    """The second sync may say yes to pages that the system has dropped."""
    fs = OrderFS(FaultyFS(PowerLossFS(OLD), fail_at=6))
    saver = Saver(fs)
    with pytest.raises(OSError):
        saver.run("lock", "data", "sync-data")
    saver.run("sync-data")
    with pytest.raises(AssertionError, match="sync-tried-again"):
        saver.run("name-data")


def test_a_sync_covers_no_write_that_is_still_under_way() -> None:
    """On a thread beside it: what the sync saw of it nobody knows."""
    began, go_on = threading.Event(), threading.Event()

    class Slow(PowerLossFS):
        def write(self, file, offset, buffers):  # type: ignore[no-untyped-def]
            began.set()
            go_on.wait(10)
            return super().write(file, offset, buffers)

    fs = OrderFS(Slow())
    file = fs.create("a.openckpt-tmp")
    thread = threading.Thread(target=fs.write, args=(file, 0, [b"x"]))
    thread.start()
    began.wait(10)
    fs.sync(file)
    go_on.set()
    thread.join()
    with pytest.raises(AssertionError, match="names-behind-bytes"):
        fs.rename("a.openckpt-tmp", "a")


def test_a_save_that_promises_less_need_not_sync() -> None:
    """Nor may it delete before the switch, or leave things behind."""
    steps = [step for step in Saver.STEPS if not step.startswith("sync")]

    def fs() -> OrderFS:
        return OrderFS(PowerLossFS(OLD), durability="process-crash")

    assert rule_broken_by(steps, fs()) == ""
    early = [step for step in later("retire", "sync-index") if not step.startswith("sync")]
    assert rule_broken_by(early, fs()) == "switch-before-removal"
    late = [step for step in later("name-data", "name-index") if not step.startswith("sync")]
    assert rule_broken_by(late, fs()) == "index-behind-data"
    assert rule_broken_by([step for step in steps if step != "unlock"], fs()) == "nothing-left"


def test_what_a_save_promises_is_found_out() -> None:
    """One that syncs something is held to all of it, one that syncs nothing is taken for less."""
    steps = [step for step in Saver.STEPS if not step.startswith("sync")]
    assert rule_broken_by(steps, OrderFS(PowerLossFS(OLD), durability=None)) == ""
    assert rule_broken_by(without("sync-index"), OrderFS(PowerLossFS(OLD), durability=None)) == "names-behind-bytes"


def test_undoing_in_the_right_order_passes_and_in_the_wrong_one_is_noticed() -> None:
    """The new data may go only when the old index is back for good."""

    def undo(*, sync: bool) -> Callable[[], None]:
        fs = OrderFS(PowerLossFS(OLD))
        saver = Saver(fs)
        saver.run("lock", "data", "sync-data", "name-data", "sync-directory", "index", "sync-index")
        fs.link("d/x.index", "d/x.9.openckpt-tmp")
        saver.run("name-index", "sync-switch")
        fs.rename("d/x.9.openckpt-tmp", "d/x.index")
        if sync:
            fs.sync_directory("d")
        for name in SHARDS:
            fs.remove(f"d/{name}")
        saver.run("unlock")
        return fs.check_end

    undo(sync=True)()
    with pytest.raises(AssertionError, match="switch-before-removal"):
        undo(sync=False)


def test_a_violation_that_was_swallowed_shows_in_the_end() -> None:
    """A saver that catches everything does not get away."""
    fs = OrderFS(PowerLossFS(OLD))
    with pytest.raises(AssertionError):
        fs.remove("d/x.data-00000-of-00001")
    with pytest.raises(AssertionError, match="switch-before-removal"):
        fs.check_end()
