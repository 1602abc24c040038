"""Hostile directories and archives: names that ask for work, files that lead away, what only pretends to be a checkpoint."""

from __future__ import annotations

import pickle

import numpy as np

from attacks.attack import Attack
from containers import tarred, zipped
from openckpt.formats.bundle import encode_bundle
from openckpt.formats.v1 import encode_v1

W = {"w": np.arange(4, dtype=np.float32)}
BUNDLE = encode_bundle(W, "ckpt-1")
V1 = encode_v1(W, "v")["v"]


def _nested(levels: int) -> bytes:
    data = zipped(BUNDLE)
    for _ in range(levels):
        data = zipped({"in.zip": data})
    return data


class _Harm:
    """What a pickle could do: leave a file behind."""

    def __reduce__(self) -> tuple[object, tuple[str, str]]:
        return open, ("harmed", "w")


CASES = [
    Attack("shard-name-of-a-hundred-million", {"m.data-00000-of-99999999": b""}, "m", "path.index-missing"),
    Attack("v1-shard-name-of-a-hundred-million", {"m-00000-of-99999999": V1}, "m", "limits.exceeded"),
    Attack("shards-without-index", {"m.data-00000-of-00001": bytes(99)}, "m.data-00000-of-00001", "path.index-missing"),
    Attack("meta-graph-alone", {"m.meta": b"\x0a\x00"}, "m", "path.meta-only"),
    Attack("unfinished-index", {"m.index.tempstate9": BUNDLE["ckpt-1.index"]}, "m.index.tempstate9", "path.unfinished"),
    Attack("renamed-index", {"m.ckpt": BUNDLE["ckpt-1.index"]}, "m.ckpt", "path.renamed-index"),
    Attack("no-archive-before-the-mark", {"a.zip": b"MZ nothing"}, "a.zip!m", "path.not-an-archive"),
    Attack("archive-in-archive-in-archive", {"a.zip": _nested(2)}, "a.zip!in.zip!in.zip", "limits.exceeded"),
    Attack("archive-in-archive-a-hundred-deep", {"a.zip": _nested(100)}, "a.zip" + "!in.zip" * 100, "limits.exceeded"),
    Attack("saved-model-without-variables", {"m/saved_model.pb": b"x"}, "m", "path.no-variables"),
    Attack("two-thousand-empty-indexes", lambda: {f"d/s{i}.index": b"" for i in range(2000)}, "d", "path.no-complete"),
    Attack("checkpoint-that-is-a-pickle", {"checkpoint": pickle.dumps(_Harm())}, "checkpoint", "detect.pickle"),
    Attack("index-that-is-a-pickle", {"m.index": pickle.dumps(_Harm()) + bytes(99)}, "m", "detect.pickle"),
    Attack(
        "member-that-is-a-pickle",
        {"a.tgz": tarred({"model.ckpt": pickle.dumps(_Harm())})},
        "a.tgz!model.ckpt",
        "detect.pickle",
    ),
    Attack(
        "sharded-keras-weights-elsewhere",
        {"m.weights.json": b'{"weight_map": {"/vars": "../outside.h5"}}'},
        "m.weights.json",
        "hdf5.unsafe-shard-name",
    ),
    Attack(
        "sharded-safetensors-elsewhere",
        {"m.safetensors.index.json": b'{"weight_map": {"a": "/etc/passwd"}}'},
        "m.safetensors.index.json",
        "safetensors.unsafe-shard-name",
    ),
    Attack(
        "manifest-of-a-hundred-thousand-entries",
        lambda: {
            "d/checkpoint": b'model_checkpoint_path: "x"\n' + b'all_model_checkpoint_paths: "../../x"\n' * 100_000,
            "d/y.index": b"",
        },
        "d",
        "path.no-complete",
    ),
]
