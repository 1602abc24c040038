"""The checkpoints that are measured, made by TensorFlow where its writer matters, and by our encoder where only names do."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from harness import ENVIRONMENT

MIB = 1 << 20


def _in_a_process(code: str, *arguments: object) -> None:
    """Run ``code`` in a fresh interpreter, so that what it imports and allocates is gone afterwards."""
    subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)], check=True, env=ENVIRONMENT, stderr=subprocess.DEVNULL
    )


_TENSORS = """
import sys, numpy as np, tensorflow as tf
from safetensors.numpy import save_file
prefix, count, elements = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
rng = np.random.default_rng(1)
values = {f"model/layer_{n:05d}/kernel": rng.random((elements,), np.float32) for n in range(count)}
tf.raw_ops.SaveV2(prefix=prefix, tensor_names=list(values), shape_and_slices=[""] * count, tensors=[tf.constant(v) for v in values.values()])
save_file(values, prefix + ".safetensors")
"""


def tensors(directory: Path, name: str, count: int, nbytes: int) -> str:
    """``count`` float32 tensors of random numbers, ``nbytes`` together, as TensorFlow and safetensors write them."""
    prefix = directory / name
    if not prefix.with_name(f"{name}.safetensors").exists():
        _in_a_process(_TENSORS, prefix, count, nbytes // count // 4)
    return str(prefix)


_DUAL = """
import os, sys, numpy as np, openckpt
prefix, count, elements = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
rng = np.random.default_rng(1)
openckpt.save(prefix, {f"model/layer_{n:05d}/kernel": rng.random((elements,), np.float32) for n in range(count)})
os.link(prefix + ".data-00000-of-00001", prefix + ".safetensors")
"""


def dual(directory: Path, name: str, count: int, nbytes: int) -> str:
    """``count`` float32 tensors as we write them by default; the shard's hard link that safetensors takes."""
    link = directory / f"{name}.safetensors"
    if not link.exists():
        _in_a_process(_DUAL, directory / name, count, nbytes // count // 4)
    return str(link)


_SCALARS = """
import json, sys, numpy as np
from pathlib import Path
from openckpt.formats.bundle import encode_bundle
directory, count = Path(sys.argv[1]), int(sys.argv[2])
names = [f"model/encoder/block_{n // 16:05d}/dense_{n % 16:02d}/kernel/.ATTRIBUTES/VARIABLE_VALUE" for n in range(count)]
values = np.arange(count, dtype=np.float32)
for name, data in encode_bundle({k: values[n:n+1].reshape(()) for n, k in enumerate(names)}, "ckpt").items():
    (directory / name).write_bytes(data)
(directory / "names.json").write_text(json.dumps(names))
"""


def scalars(directory: Path, count: int) -> tuple[str, str]:
    """``count`` scalars with 66-character names: all index. Returns the prefix and the file with the names."""
    place = directory / f"scalars-{count}"
    if not (place / "names.json").exists():
        place.mkdir()
        _in_a_process(_SCALARS, place, count)
    assert len(json.loads((place / "names.json").read_text())) == count
    return str(place / "ckpt"), str(place / "names.json")


_TREE = """
import sys, numpy as np
from pathlib import Path
from openckpt.formats.bundle import encode_bundle
root, count = Path(sys.argv[1]), int(sys.argv[2])
for n in range(count):
    place = root / f"exp{n // 1000:02d}" / f"run{n // 10 % 100:02d}"
    place.mkdir(parents=True, exist_ok=True)
    for name, data in encode_bundle({f"layer_{i}/kernel": np.arange(8, dtype="f4") + n for i in range(10)}, f"ckpt-{n % 10}").items():
        (place / name).write_bytes(data)
    if n % 10 == 9:
        lines = [f'model_checkpoint_path: "ckpt-9"'] + [f'all_model_checkpoint_paths: "ckpt-{i}"' for i in range(10)]
        (place / "checkpoint").write_text("\\n".join(lines) + "\\n")
"""


def tree(directory: Path, count: int) -> str:
    """``count`` checkpoints of ten small tensors, ten steps to a run with its manifest."""
    root = directory / f"tree-{count}"
    if not root.exists():
        _in_a_process(_TREE, root, count)
    return str(root)
