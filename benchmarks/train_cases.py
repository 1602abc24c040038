"""The goals of live programs: saving and restoring objects against tf.train.Checkpoint, async saves against every framework's own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from harness import Result, Row, call_alone, figure, memory_row, race, versus

if TYPE_CHECKING:
    from cases import Setting

MIB = 1 << 20


def train(setting: Setting) -> Result:
    """A Keras model of 200 variables and 20,000 small variables; async saves of 1 GiB; what a training loop notices of them."""
    result = Result()
    _objects(setting, result)
    _memory(setting, result)
    _async(setting, result)
    _delta(setting, result)
    _loop(setting, result)
    return result


def _objects(setting: Setting, result: Result) -> None:
    small = setting.size(20_000, 1_000)
    for kind, count, goal in (("keras", 200, 2), ("small", small, 10)):
        what = f"Keras model of {count} variables" if kind == "keras" else f"{count:,} variables of 100 floats"
        for job, verb in (("train_save", "saving, not synced"), ("train_restore", "restoring, all asserted")):
            place = {"directory": str(setting.directory), "kind": kind, "count": count}
            sides: dict[str, tuple[str, dict[str, Any]]] = {
                "ours": (job, {**place, "side": "ours"}),
                "tf.train.Checkpoint": (job, {**place, "side": "tf"}),
            }
            if kind == "small":
                sides["ours, of the same tf.Variables"] = (job, {**place, "side": "ours-of-tf"})
            samples = race(sides, rounds=setting.rounds)
            ours, tf, *rest = samples.values()
            result.rows.append(versus(what, f"{verb}, object graph included", ours, tf, goal))
            result.notes += [
                f"{what}, {verb}: {tf.median / other.median:.2f} x tf.train.Checkpoint {other.name}: {figure(other)}"
                for other in rest
            ]


def _memory(setting: Setting, result: Result) -> None:
    nbytes = setting.size(1024 * MIB, 64 * MIB)
    for count in (64, setting.size(20_000, 1_000)):
        grown = call_alone("train_restore_growth", directory=str(setting.directory), count=count, nbytes=nbytes)
        name = f"restoring {nbytes // MIB} MiB in {count:,} arrays in place, beyond the model"
        result.rows.append(memory_row("Restore, memory", name, grown, 64 * MIB + nbytes // count))
    for framework in ("numpy", "torch", "jax", "tf"):
        grown = call_alone(
            "async_growth", directory=str(setting.directory), framework=framework, count=64, nbytes=nbytes
        )
        name = f"async save of {nbytes // MIB} MiB of {framework} state, beyond the model: one copy and 64 MiB"
        result.rows.append(memory_row("Async save, memory", name, grown, nbytes + 64 * MIB))


def _async(setting: Setting, result: Result) -> None:
    nbytes = setting.size(1024 * MIB, 64 * MIB)
    area = f"Async save of {nbytes // MIB} MiB, time the program waits"
    peers = (("torch", "dcp", "torch DCP async_save"), ("jax", "orbax", "Orbax"), ("tf", "tf", "TensorFlow async"))
    for framework, saver, peer_name in peers:
        place = {"directory": str(setting.directory), "framework": framework, "count": 64, "nbytes": nbytes}
        for new, which in ((True, "first save of a process"), (False, "later saves")):
            samples = race(
                {
                    f"ours, {framework}": ("async_save", {**place, "saver": "ours", "new": new}),
                    peer_name: ("async_save", {**place, "saver": saver, "new": new}),
                },
                rounds=setting.rounds,
                new_process=new,
            )
            name = f"{framework} state, changed right after the return, {which}"
            result.rows.append(versus(area, name, *samples.values(), 1, compare="above", nbytes=nbytes))


def _delta(setting: Setting, result: Result) -> None:
    nbytes = setting.size(1024 * MIB, 64 * MIB)
    place = {"directory": str(setting.directory), "nbytes": nbytes}
    samples = race(
        {
            "full": ("save_changed", {**place, "how": "full"}),
            "frozen": ("save_changed", {**place, "how": "frozen"}),
            "hash": ("save_changed", {**place, "how": "hash"}),
        },
        rounds=setting.rounds,
    )
    full, frozen, hashed = samples.values()
    area = f"Delta save of {nbytes // MIB} MiB, durable, 1 % changed"
    result.rows += [
        versus(area, "the rest declared frozen: under 10 % of a full save", frozen, full, 10, compare="above"),
        versus(area, "the rest known by its hash: under 30 % of a full save", hashed, full, 1 / 0.3, compare="above"),
    ]


def _loop(setting: Setting, result: Result) -> None:
    nbytes, steps = setting.size(100_000_000, 10_000_000), setting.size(50, 10)
    place = {"directory": str(setting.directory), "nbytes": nbytes, "steps": steps, "seconds": 0.05}
    samples = race(
        {
            "with a save": ("loop_with_save", {**place, "saves": True}),
            "without": ("loop_with_save", {**place, "saves": False}),
        },
        rounds=3 * setting.rounds,  # one hundredth is less than what two runs of the same loop differ by
        together=True,
    )
    ours, bare = samples.values()
    result.rows.append(
        Row(
            "Training loop",
            f"{nbytes // 10**6} MB of state saved every {steps} steps of 50 ms: overhead under 1 %",
            figure(ours),
            f"{bare.name}: {figure(bare)}",
            bare.median / ours.median,
            1 / 1.01,
            "above",
        )
    )
