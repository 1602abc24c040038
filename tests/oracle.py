"""What the tests are held against: stock TensorFlow, and a corpus of checkpoints that strangers wrote. And whether they are here.

A value's hash is the corpus's: sha256 over its bytes, little-endian, C order; for strings over every element in C order, each
as its length (8 bytes, little-endian) followed by its bytes.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import json
import os
from pathlib import Path
from typing import Any

CHECKOUT = Path(__file__).resolve().parents[1]
CORPUS = Path(os.environ.get("OPENCKPT_CORPUS") or CHECKOUT.parent / "shared" / "corpus")

NEEDS = {
    "interop": (
        "stock TensorFlow is not installed: nothing was compared with what TensorFlow writes and reads",
        "pip install -e '.[interop]'",
    ),
    "corpus": (
        "the development corpus is not there: no checkpoint that strangers wrote was read",
        "put it at ../shared/corpus beside the checkout, or set OPENCKPT_CORPUS=DIRECTORY",
    ),
    "torch": (
        "PyTorch is not installed: no live module or optimizer of it was saved and restored",
        "pip install -e '.[interop]'",
    ),
    "jax": (
        "JAX, Flax or optax is not installed: no live program of theirs was saved and restored",
        "pip install -e '.[interop]'",
    ),
}
"""marker -> why its tests are skipped where the need is not met, and the remedy"""


@functools.cache
def absent() -> frozenset[str]:
    """Return which of `NEEDS` this machine cannot meet."""
    packages = {"interop": ("tensorflow", "tf_keras", "keras"), "torch": ("torch",), "jax": ("jax", "flax", "optax")}
    missing = {
        need for need, names in packages.items() if any(importlib.util.find_spec(name) is None for name in names)
    }
    if not (CORPUS / "corpus.json").is_file():
        missing.add("corpus")
    return frozenset(missing)


@functools.cache
def corpus_cases() -> tuple[dict[str, Any], ...]:
    """Return the records of ``corpus.json``; () where the corpus is absent, so that tests can be collected without it."""
    if "corpus" in absent():
        return ()
    return tuple(json.loads((CORPUS / "corpus.json").read_text("utf-8"))["cases"])


def sha256_of(array: Any) -> str:
    """Return the corpus's hash of a value: an array of numbers, or an object array of bytes."""
    import numpy as np

    if array.dtype == object:
        digest = hashlib.sha256()
        for element in array.ravel():
            digest.update(len(element).to_bytes(8, "little") + element)
        return digest.hexdigest()
    little = array.astype(array.dtype.newbyteorder("<")) if array.dtype.byteorder == ">" else array
    return hashlib.sha256(np.ascontiguousarray(little).tobytes()).hexdigest()
