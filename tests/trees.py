"""Whole trees of tensors of every type, and what it means that a checkpoint reads as one of them."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Mapping
from math import prod
from os import PathLike
from typing import TYPE_CHECKING, Any, BinaryIO, TypeAlias

import numpy as np

import openckpt
from openckpt.formats.dtypes import BY_NAME

if TYPE_CHECKING:
    from openckpt.formats.hdf5.encoder import HDF5Writer
    from openckpt.formats.npz_encoder import NpzWriter
    from openckpt.formats.spec import TensorReader

Tree: TypeAlias = "Mapping[str, tuple[str, np.ndarray]]"
"""key -> (TensorFlow's name of the type, value); strings and variants are object arrays of bytes"""

ODD_KEYS = (
    "../climbs", "/absolute", "two//slashes", "a/./b", ".", "..", " ", "trailing/", "back\\slash", "C:/drive", "key-0", "x.npy",
    "é/日本語", "bytes\udcff\udcfe", "nul\0inside", "quote\"'\n", "a", "a/b", "a/__value__", "a/__value__/c", "__metadata__",
    "long" * 100, "/".join("d" * 100),
)  # fmt: skip
"""keys that are no path, no member's name, or the group of another key"""


def objects(*elements: bytes, shape: tuple[int, ...] | None = None) -> np.ndarray:
    """Return an object array of bytes."""
    flat = np.empty(len(elements), object)
    flat[:] = elements
    return flat.reshape((len(elements),) if shape is None else shape)


def numbers(dtype: str, shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """Return a tensor of a numeric type, any bits that the type has."""
    rng, kind = np.random.default_rng(seed), BY_NAME[dtype].numpy()
    span = {
        "int4": (-8, 8),
        "uint4": (0, 16),
        "int2": (-2, 2),
        "uint2": (0, 4),
        "float4_e2m1fn": (0, 6),
        "bool": (0, 2),
    }
    if dtype in span:
        return np.asarray(rng.integers(*span[dtype], shape).astype(kind))
    return np.frombuffer(rng.bytes(prod(shape) * kind.itemsize), kind).reshape(shape)


def everything() -> dict[str, tuple[str, np.ndarray]]:
    """Return a tree of every type in four shapes, strings that hurt, and keys that are no names."""
    tree: dict[str, tuple[str, np.ndarray]] = {}
    for dtype in sorted(name for name, known in BY_NAME.items() if known.is_numeric):
        for shape in ((), (0, 2), (3,), (2, 3)):
            tree[f"{dtype}/{'x'.join(map(str, shape)) or 'scalar'}"] = dtype, numbers(dtype, shape, len(tree))
    for number, key in enumerate(ODD_KEYS):
        tree[key] = "float32", np.float32(number).reshape(())
    tree["text/plain"] = "string", objects(b"hello", b"", "ü".encode())
    tree["text/zeros"] = "string", objects(b"a\0", b"\0", b"a\0b")
    tree["text/no text"] = "string", objects(b"\xff\xfe", b"x", shape=(2, 1))
    tree["text/uneven"] = "string", objects(b"c" * 70_000, *[b""] * 50)
    tree["text/none"] = "string", objects(shape=(0, 2))
    tree["text/scalar"] = "string", objects(b"one", shape=())
    tree["opaque"] = "variant", objects(b"\x0a\x01x", b"")
    tree["deep/numbers"] = "float32", np.full((1,) * 40, 2, np.float32)
    tree["deep/narrow"] = "int4", np.full((1,) * 40, -3, np.int8).astype(BY_NAME["int4"].numpy())
    tree["deep/text"] = "string", objects(b"x", shape=(1,) * 40)
    return tree


def same(one: np.ndarray, other: np.ndarray) -> bool:
    """Return whether two tensors are equal in type, shape and every bit."""
    if one.dtype != other.dtype or one.shape != other.shape:
        return False
    return bool(one.tolist() == other.tolist()) if one.dtype == object else one.tobytes() == other.tobytes()


def check_reads_as(reader: TensorReader, tree: Tree) -> None:
    """Hold a reader against the tree that was written: keys, types, shapes, every bit, and nothing to say for the doctor."""
    assert {key: (spec.dtype, spec.shape) for key, spec in reader.items()} == {
        key: (dtype, value.shape) for key, (dtype, value) in tree.items()
    }
    assert all(same(reader.read(key), value) for key, (_, value) in tree.items())
    assert list(reader.validate()) == []


def encoded(make: Callable[[BinaryIO, list[str]], HDF5Writer | NpzWriter], tree: Tree) -> bytes:
    """Return the file that a format's own writer makes of a tree."""
    file = io.BytesIO()
    writer = make(file, list(tree))
    for key, (dtype, value) in tree.items():
        writer.add(key, value, dtype)
    writer.finish()
    return file.getvalue()


def save_tree(prefix: str | PathLike[str], tree: Tree, **options: Any) -> str:
    """Save a tree as a checkpoint and return its prefix."""
    values = {key: value for key, (_, value) in tree.items()}
    named = {key: dtype for key, (dtype, _) in tree.items()}
    return str(openckpt.save(str(prefix), values, dtypes=named, **options))


def differences(path: str | PathLike[str], tree: Tree, *, keys: Iterable[str] | None = None) -> list[str]:
    """Return what a checkpoint holds that is not the tree: nothing, where it reads as it."""
    wanted = set(tree if keys is None else keys)
    wrong: list[str] = []
    with openckpt.open(path) as ckpt:
        wrong += [f"{key!r} is there or is not" for key in set(ckpt) ^ wanted]
        for key in wanted & set(ckpt):
            dtype, value = tree[key]
            spec = ckpt.specs[key]
            if (spec.dtype, spec.shape) != (dtype, value.shape):
                wrong.append(f"{key!r} is {spec.dtype} {spec.shape}, not {dtype} {value.shape}")
            elif not same(ckpt[key], value):
                wrong.append(f"{key!r} has another value")
    return wrong
