"""The folders of ``openckpt demo``: small checkpoints, healthy and broken, made by the encoders and damaged by hand.

Everything is deterministic: the same version writes the same bytes. Each case says which finding it is there to show, so that the
demo, the documentation's examples and the tests hold the doctor to it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from openckpt.formats.bundle import Strings, encode_bundle
from openckpt.formats.manifest import Manifest, encode_manifest
from openckpt.formats.objectgraph import Attribute, Child, Node, ObjectGraph, SlotVariable, encode_object_graph
from openckpt.formats.spec import GRAPH_KEY, VALUE_SUFFIX

if TYPE_CHECKING:
    from openckpt.doctor import Report
    from openckpt.formats.bundle.encoder import Value
    from openckpt.formats.spec import Array

Files = dict[str, bytes]
_LAYERS = ("dense", "output")
_SIZES = {"dense": (16, 32), "output": (32, 10)}


@dataclass(frozen=True, slots=True)
class Case:
    """One folder of the demo.

    Attributes:
        name: of the folder.
        summary: what happened to it, one sentence.
        files: name -> bytes.
        code: the finding that it is there to show; None where the doctor must have nothing but notes.
    """

    name: str
    summary: str
    files: Mapping[str, bytes]
    code: str | None

    def is_told_by(self, report: Report) -> bool:
        """Return whether the doctor said of this folder what it is there to show."""
        told = {finding.code for finding in report.all_findings() if finding.severity != "note"}
        return self.code in told if self.code is not None else not told


def demo_cases() -> list[Case]:
    """Make every case, the healthy ones first."""
    return [
        Case(
            "healthy",
            "Two steps of a small model with its optimizer, and a manifest, as a trainer leaves them.",
            run(1, 2),
            None,
        ),
        Case("healthy-v1", "The same weights in the format of 2016, without an object graph.", _v1(), None),
        Case("healthy-neighbour", "The same weights as an .npz archive.", _npz(), None),
        *(Case(name, summary, make(), code) for name, (code, summary, make) in _BROKEN.items()),
    ]


# ------------------------------------------------------------------------------------------------------- one model


def model_tensors(step: int) -> dict[str, Array]:
    """Return the variables of a small model and of its optimizer at one step, under the keys of a TF2 checkpoint."""
    import numpy as np

    rng = np.random.default_rng(step)
    tensors: dict[str, Array] = {}
    for layer in _LAYERS:
        for variable, shape in (("kernel", _SIZES[layer]), ("bias", _SIZES[layer][1:])):
            path = f"model/{layer}/{variable}"
            tensors[path + VALUE_SUFFIX] = rng.normal(0, 0.1, shape).astype("f4")
            for slot, scale in (("m", 1e-3), ("v", 1e-6)):
                key = f"{path}/.OPTIMIZER_SLOT/optimizer/{slot}{VALUE_SUFFIX}"
                tensors[key] = np.abs(rng.normal(0, scale, shape)).astype("f4")
    tensors["optimizer/iter" + VALUE_SUFFIX] = np.array(step * 1000, dtype="i8")
    tensors["optimizer/learning_rate" + VALUE_SUFFIX] = np.array(1e-3, dtype="f4")
    tensors["save_counter" + VALUE_SUFFIX] = np.array(step, dtype="i8")
    return tensors


def model_graph() -> ObjectGraph:
    """Return the object graph over `model_tensors`: a model with two layers, each under two names, an optimizer, a counter."""
    nodes = [
        Node(children=(Child(1, "model"), Child(2, "optimizer"), Child(3, "save_counter")), has_checkpoint_values=True)
    ]
    layers = [Child(4 + number, layer) for number, layer in enumerate(_LAYERS)]
    aliases = [Child(4 + number, f"layer-{number}") for number in range(len(_LAYERS))]
    nodes.append(Node(children=(*layers, *aliases), has_checkpoint_values=True))
    variables = [(layer, variable) for layer in _LAYERS for variable in ("kernel", "bias")]
    first_variable = 4 + len(_LAYERS)
    first_slot = first_variable + len(variables) + 2
    slots = [
        (slot, number, layer, variable) for slot in ("m", "v") for number, (layer, variable) in enumerate(variables)
    ]
    records = tuple(
        SlotVariable(first_variable + number, slot, first_slot + place)
        for place, (slot, number, _, _) in enumerate(slots)
    )
    own = first_variable + len(variables)
    nodes.append(
        Node((Child(own, "iter"), Child(own + 1, "learning_rate")), slot_variables=records, has_checkpoint_values=True)
    )
    nodes.append(_variable("save_counter", "save_counter"))
    for number in range(len(_LAYERS)):
        children = (Child(first_variable + 2 * number, "kernel"), Child(first_variable + 2 * number + 1, "bias"))
        nodes.append(Node(children=children, has_checkpoint_values=True))
    nodes += [_variable(f"model/{layer}/{variable}", f"{layer}/{variable}") for layer, variable in variables]
    nodes += [_variable("optimizer/iter", "Adam/iter"), _variable("optimizer/learning_rate", "Adam/learning_rate")]
    for slot, _, layer, variable in slots:
        nodes.append(
            _variable(f"model/{layer}/{variable}/.OPTIMIZER_SLOT/optimizer/{slot}", f"Adam/{layer}/{variable}/{slot}")
        )
    return ObjectGraph(tuple(nodes))


def _variable(path: str, full_name: str) -> Node:
    return Node(attributes=(Attribute("VARIABLE_VALUE", full_name, path + VALUE_SUFFIX),), has_checkpoint_values=True)


def step_files(step: int, *, prefix: str = "ckpt", shards: int = 1) -> Files:
    """Return the files of one step, as TensorFlow would write them."""
    tensors: dict[str | bytes, Value] = {}
    tensors.update(model_tensors(step).items())
    tensors[GRAPH_KEY] = Strings([encode_object_graph(model_graph())])
    return encode_bundle(tensors, f"{prefix}-{step}", shards=shards)


def run(*steps: int, listed: tuple[int, ...] | None = None, shards: int = 1, directory: str = "") -> Files:
    """Return the files of a run: some steps, and a manifest that lists them, or those given, below a directory."""
    files: Files = {}
    for step in steps:
        files |= step_files(step, shards=shards)
    names = tuple(f"{directory}ckpt-{step}" for step in (steps if listed is None else listed))
    files["checkpoint"] = encode_manifest(Manifest(names[-1], names))
    return files


# ---------------------------------------------------------------------------------------------------- what goes wrong


def _plain(step: int) -> dict[str, Array]:
    """Return the variables alone, under the names that TensorFlow 1 gives them."""
    tensors = model_tensors(step)
    return {key.removesuffix(VALUE_SUFFIX): value for key, value in tensors.items() if ".OPTIMIZER_SLOT" not in key}


def _v1() -> Files:
    from openckpt.formats.v1 import encode_v1

    tensors: dict[str | bytes, Value] = {}
    tensors.update(_plain(7).items())
    files = encode_v1(tensors, "model.ckpt-7")
    return {**files, "checkpoint": encode_manifest(Manifest("model.ckpt-7", ("model.ckpt-7",)))}


def _npz() -> Files:
    from io import BytesIO

    import numpy as np

    arrays: dict[str, Any] = dict(_plain(2))
    out = BytesIO()
    np.savez(out, **arrays)
    return {"weights.npz": out.getvalue()}


def _shard(step: int) -> str:
    return f"ckpt-{step}.data-00000-of-00001"


def _missing_shard() -> Files:
    files = run(3, shards=2)
    del files["ckpt-3.data-00001-of-00002"]
    return files


def _flipped_byte() -> Files:
    files = run(2)
    data = bytearray(files[_shard(2)])
    data[100] ^= 0x04
    return {**files, _shard(2): bytes(data)}


def _truncated() -> Files:
    files = run(2)
    return {**files, _shard(2): files[_shard(2)][:6000]}


def _lfs_pointer() -> Files:
    from hashlib import sha256

    files = run(2)
    data = files[_shard(2)]
    text = f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256(data).hexdigest()}\nsize {len(data)}\n"
    return {**files, _shard(2): text.encode()}


def _error_page() -> Files:
    files = step_files(2)
    page = b"<!DOCTYPE html>\n<html><head><title>404 Not Found</title></head>\n<body><h1>Not Found</h1></body></html>\n"
    return {**files, "ckpt-2.index": page}


def _missing_index() -> Files:
    files = run(2)
    del files["ckpt-2.index"]
    return files


def _interrupted_save() -> Files:
    files = run(1)
    part = step_files(2)
    files["ckpt-2_temp/part-00000-of-00001.index"] = part["ckpt-2.index"]
    files["ckpt-2_temp/part-00000-of-00001.data-00000-of-00001"] = part[_shard(2)][:4096]
    return files


def _mixed_steps() -> Files:
    files = run(1, 2)
    return {**files, _shard(2): files[_shard(1)]}


def _renamed_manifest() -> Files:
    files = run(1, 2)
    files["checkpoint.txt"] = files.pop("checkpoint")
    return files


def _newest_deleted() -> Files:
    files = run(1, 2, 3)
    return {name: data for name, data in files.items() if not name.startswith("ckpt-3.")}


_BROKEN: dict[str, tuple[str, str, Callable[[], Files]]] = {
    "missing-shard": ("bundle.shard-missing", "A download of a two-shard checkpoint of which one file is not there.", _missing_shard),
    "flipped-byte": ("bundle.crc-mismatch", "One bit of one tensor changed on a disk.", _flipped_byte),
    "truncated": ("bundle.data-truncated", "A copy that ended early.", _truncated),
    "lfs-pointer": ("detect.lfs-pointer", "A clone without Git LFS: the data file is the pointer to it.", _lfs_pointer),
    "error-page": ("detect.html-page", "A download script that saved the web server's error page.", _error_page),
    "missing-index": ("run.index-missing", "Only the data file was copied.", _missing_index),
    "interrupted-save": ("run.leftover-parts", "A trainer killed in the middle of its second save.", _interrupted_save),
    "mixed-steps": ("run.mixed-steps", "The index of one step over the data of another.", _mixed_steps),
    "moved": ("run.moved", "A run copied from another machine: its manifest names the old place.",
              lambda: run(1, 2, directory="/home/alice/experiments/run-7/")),
    "forgotten-step": ("run.newer-unlisted", "A newer step that the manifest does not list.", lambda: run(1, 2, listed=(1,))),
    "newest-deleted": ("run.newest-missing", "The manifest names a step that somebody deleted.", _newest_deleted),
    "renamed-manifest": ("run.manifest-renamed", "A browser added .txt to the manifest.", _renamed_manifest),
}  # fmt: skip
"""Folder -> the code it shows, what happened, how it is made."""
