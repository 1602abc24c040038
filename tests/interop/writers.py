"""The ways in which openckpt makes a checkpoint in TensorFlow's layout; the golden tests run every one of them.

A plan, where there is one, says what each data file holds (`openckpt.formats.bundle.splitting.Piece`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

import openckpt
from openckpt.formats.bundle import Sliced, Strings, Variants, encode_bundle
from openckpt.formats.bundle.merging import merge_indexes
from openckpt.formats.bundle.splitting import Piece
from openckpt.formats.dtypes import BY_NAME, dtype_of_numpy
from openckpt.formats.names import INDEX_SUFFIX, shard_name
from openckpt.formats.spec import TensorSpec

Values = Mapping[str, Any]
Plan = Sequence[Sequence[Piece]]
NAME = "ckpt"


def _part_of(values: Values, pieces: Sequence[Piece]) -> dict[str, Any]:
    """The tensors of one data file: whole ones as they are, the pieces of the others together."""
    part: dict[str, Any] = {}
    for key, extents in pieces:
        if extents is None:
            part[key] = values[key]
            continue
        region = tuple(slice(start, start + length) for start, length in extents)
        before = part.get(key)
        known = dict(before.pieces) if isinstance(before, Sliced) else {}
        part[key] = Sliced(values[key].shape, {**known, extents: values[key][region]})
    return part


def encode(values: Values, *, dtypes: Mapping[str, str] | None = None, plan: Plan | None = None) -> dict[str, bytes]:
    """By the pure encoder; several data files as parts whose indexes are merged."""
    if plan is None:
        return encode_bundle(values, NAME, dtypes=dtypes)
    parts: dict[str, dict[str, bytes]] = {}
    for number, pieces in enumerate(plan):
        name = f"part-{number:05d}-of-{len(plan):05d}"
        parts[name] = encode_bundle(_part_of(values, pieces), name, dtypes=dtypes)
    merged = merge_indexes([(name, files[name + INDEX_SUFFIX]) for name, files in parts.items()])
    files = {
        shard_name(NAME, number, merged.header.num_shards): parts[origin.part][shard_name(*origin)]
        for number, origin in enumerate(merged.origins)
    }
    return {**files, NAME + INDEX_SUFFIX: merged.encode()}


class _Planned:
    """A sharding policy that has its mind made up."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan

    def plan(self, specs: Sequence[tuple[str, TensorSpec]]) -> list[list[Piece]]:
        """Return the plan, whatever the tensors are."""
        return [list(pieces) for pieces in self._plan]


def save(values: Values, *, dtypes: Mapping[str, str] | None = None, plan: Plan | None = None) -> dict[str, bytes]:
    """By `openckpt.save`, all tensors at once."""
    with TemporaryDirectory() as folder:
        openckpt.save(
            f"{folder}/{NAME}",
            {key: _as_saved(value) for key, value in values.items()},
            layout="tensorflow",
            dtypes=dtypes,
            sharding=None if plan is None else _Planned(plan),
            durability="process-crash",
        )
        return _files(folder)


def stream(values: Values, *, dtypes: Mapping[str, str] | None = None, plan: Plan | None = None) -> dict[str, bytes]:
    """By `openckpt.create`, tensor by tensor, nothing announced; with a plan as `save` does."""
    if plan is not None:
        return save(values, dtypes=dtypes, plan=plan)
    with TemporaryDirectory() as folder:
        with openckpt.create(f"{folder}/{NAME}", layout="tensorflow", durability="process-crash") as writer:
            for key, value in values.items():
                writer.add(key, _as_saved(value), dtype=(dtypes or {}).get(key))
        return _files(folder)


def _as_saved(value: Any) -> Any:
    """In the words of the public face: object arrays of bytes and of `Variant`, and its own `Sliced`."""
    if isinstance(value, Sliced):
        return openckpt.Sliced(value.shape, {extents: _as_saved(piece) for extents, piece in value.pieces.items()})
    if isinstance(value, Strings | Variants):
        array = np.empty(len(value.elements), object)
        array[:] = value.elements if isinstance(value, Strings) else [openckpt.Variant(data) for data in value.elements]
        return array.reshape(value.shape)
    return value


def _files(folder: str) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in Path(folder).iterdir()}


WRITERS: dict[str, Callable[..., dict[str, bytes]]] = {"encode_bundle": encode, "save": save, "create": stream}
"""each takes values, ``dtypes=`` and ``plan=`` and returns the bytes of every file that it makes"""


def specs_of(values: Values, dtypes: Mapping[str, str] | None = None) -> list[tuple[str, TensorSpec]]:
    """Key and spec of every value, strings with the bytes of their elements, as a plan of shards wants them."""
    specs = []
    for key, value in values.items():
        if isinstance(value, Strings | Variants):
            name = "string" if isinstance(value, Strings) else "variant"
            specs.append((key, TensorSpec(name, value.shape, sum(map(len, value.elements)))))
            continue
        array = np.asarray(value)
        dtype = BY_NAME[(dtypes or {})[key]] if key in (dtypes or {}) else dtype_of_numpy(array.dtype)
        assert dtype is not None
        size = sum(map(len, array.ravel().tolist())) if dtype.name == "string" else None
        specs.append((key, TensorSpec(dtype.name, array.shape, size)))
    return specs


def runs(keys: Sequence[str], count: int) -> list[list[Piece]]:
    """Deal keys to ``count`` data files in contiguous runs."""
    return [
        [Piece(key) for number, key in enumerate(keys) if number * count // len(keys) == shard]
        for shard in range(count)
    ]


def assert_same_files(folder: Path, made: Mapping[str, bytes]) -> None:
    """The folder holds exactly these files, byte for byte."""
    written = {
        path.name: path.read_bytes() for path in folder.iterdir() if path.is_file() and path.name != "checkpoint"
    }
    assert sorted(made) == sorted(written)
    for name, data in written.items():
        assert len(made[name]) == len(data), name
        differs = next((i for i, (a, b) in enumerate(zip(made[name], data, strict=True)) if a != b), None)
        assert differs is None, f"{name} differs from byte {differs}"
