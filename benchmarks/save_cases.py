"""The goals of writing: each row races `openckpt.save` against a peer that gives the same promise, synced or not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import datasets
from harness import Result, Row, Sample, Worker, below, figure, memory_row, race, versus

if TYPE_CHECKING:
    from cases import Setting

MIB = 1 << 20


def save(setting: Setting) -> Result:
    """Writing 1 GiB in 64 tensors and 256 MiB in 20,000, without sync and durably; memory; a dual shard read back."""
    result = Result()
    _large(setting, result)
    _small(setting, result)
    _memory(setting, result)
    _dual(setting, result)
    return result


def _sides(place: dict[str, Any], *, durable: bool) -> dict[str, tuple[str, dict[str, Any]]]:
    ending = " + fsync" if durable else ""
    return {
        "ours": ("save_ours", {**place, "durable": durable}),
        f"tf.train.Checkpoint.write{ending}": ("save_tf", {**place, "durable": durable}),
        f"safetensors save_file{ending}": ("save_safetensors", {**place, "durable": durable}),
        f"torch.save{ending}": ("save_torch", {**place, "durable": durable}),
    }


def _place(setting: Setting, count: int, nbytes: int) -> dict[str, Any]:
    return {"directory": str(setting.directory), "count": count, "nbytes": nbytes}


def _large(setting: Setting, result: Result) -> None:
    nbytes = setting.size(1024 * MIB, 64 * MIB)
    place = _place(setting, 64, nbytes)
    area = f"Save {nbytes // MIB} MiB in 64 tensors"
    samples = race(_sides(place, durable=False), rounds=setting.rounds)
    ours, tf, safetensors, torch = samples.values()
    result.rows += [
        versus(area, "not synced, against TensorFlow", ours, tf, 2, nbytes=nbytes),
        versus(area, "not synced, against safetensors", ours, safetensors, 1.2, nbytes=nbytes),
        versus(area, "not synced, against torch", ours, torch, 2, nbytes=nbytes),
    ]
    # A disk shared with others is the noisiest thing here.
    samples = race(
        {**_sides(place, durable=True), "O_DIRECT write + fsync": ("save_direct", place)}, rounds=2 * setting.rounds + 1
    )
    ours, tf, safetensors, torch, direct = samples.values()
    result.rows += [
        versus(area, "durable, against TensorFlow and syncs", ours, tf, 2, nbytes=nbytes),
        versus(area, "durable, against bare O_DIRECT writes of the same bytes", ours, direct, 0.85, nbytes=nbytes),
    ]
    result.notes += [_beside(area, ours, peer, nbytes) for peer in (safetensors, torch)]
    best = min(direct.seconds) / min(ours.seconds)
    result.notes.append(f"{area}, durable: {best:.2f} x bare O_DIRECT by the best call of each side")


def _small(setting: Setting, result: Result) -> None:
    nbytes, count = setting.size(256 * MIB, 26 * MIB), setting.size(20_000, 2_000)
    place = _place(setting, count, nbytes // (4 * count) * 4 * count)
    area = f"Save {nbytes // MIB} MiB in {count:,} tensors"
    for durable in (False, True):
        samples = race(_sides(place, durable=durable), rounds=setting.rounds)
        ours, tf, safetensors, torch = samples.values()
        if durable:
            result.notes += [_beside(area, ours, peer, nbytes) for peer in (tf, safetensors, torch)]
            continue
        result.rows += [
            versus(area, "not synced, against safetensors", ours, safetensors, 1, nbytes=nbytes),
            versus(area, "not synced, against TensorFlow", ours, tf, 15, nbytes=nbytes),
        ]
        result.notes.append(
            f"{area}, not synced: {torch.median / ours.median:.2f} x torch.save, {figure(torch, nbytes)}"
        )


def _beside(area: str, ours: Sample, peer: Sample, nbytes: int) -> str:
    return (
        f"{area}, durable: {peer.median / ours.median:.2f} x {peer.name}; ours {figure(ours, nbytes)}, "
        f"{peer.name} {figure(peer, nbytes)}"
    )


def _memory(setting: Setting, result: Result) -> None:
    large, small = setting.size(1024 * MIB, 64 * MIB), setting.size(256 * MIB, 26 * MIB)
    for count, nbytes in ((64, large), (setting.size(20_000, 2_000), small)):
        place = _place(setting, count, nbytes // (4 * count) * 4 * count)
        for durable in (False, True):
            worker = Worker()
            try:
                grown = worker.call("save_growth", durable=durable, **place)
            finally:
                worker.close()
            name = f"saving {nbytes // MIB} MiB in {count:,} tensors, {'durable' if durable else 'not synced'}"
            result.rows.append(memory_row("Save, memory", f"{name}, beyond the caller's arrays", grown, 64 * MIB))


def _dual(setting: Setting, result: Result) -> None:
    nbytes = setting.size(1024 * MIB, 64 * MIB)
    path = datasets.dual(setting.directory, "dual", 64, nbytes)
    area = f"Dual shard of {nbytes // MIB} MiB as safetensors"
    rows: list[Row] = []
    samples = race(
        {"ours, views": ("sums_of_views", {"path": path}), "load_file": ("sums_of_load_file", {"path": path})},
        rounds=setting.rounds,
    )
    ours, peer = samples.values()
    rows.append(versus(area, "zero-copy views, every byte summed", ours, peer, 2, nbytes=nbytes))
    samples = race(
        {"ours, new arrays": ("load_link", {"path": path}), "load_file": ("restore_safetensors", {"path": path})},
        rounds=setting.rounds,
    )
    ours, peer = samples.values()
    rows.append(
        versus(area, "into new arrays, CRC checked, against load_file, unchecked", ours, peer, 2, nbytes=nbytes)
    )
    samples = race({"ours, views": ("views_of_link", {"path": path})}, rounds=setting.rounds)
    rows.append(below(area, "zero-copy views of all, nothing read", samples["ours, views"], 1e-3))
    result.rows += rows
