"""The plain functions: `save` a mapping or an opened checkpoint, `create` one to be written tensor by tensor."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from openckpt.errors import NotFoundError, Where
from openckpt.formats.collecting import collection_held
from openckpt.formats.slicekeys import Extents
from openckpt.formats.spec import TensorSpec
from openckpt.storage.writable import Durability, WritableStore
from openckpt.writing.announced import Announced, plain_specs
from openckpt.writing.filling import Layout
from openckpt.writing.keys import with_text_keys
from openckpt.writing.manifests import ManifestUpdate
from openckpt.writing.pieces import check_pieces
from openckpt.writing.result import SavedPath
from openckpt.writing.sharding import Sharding
from openckpt.writing.values import Sliced, Stored, Value, describe, encode, text_bytes
from openckpt.writing.writer import CheckpointWriter

if TYPE_CHECKING:
    from collections.abc import Iterable

    from openckpt.formats.spec import Array

_READ_BYTES = 32 << 20  # of small tensors read from an opened checkpoint at once


class OpenedCheckpoint(Protocol):
    """What `save` needs of an opened checkpoint: `openckpt.CheckpointReader` has it."""

    format: str

    @property
    def specs(self) -> Mapping[str, TensorSpec]:
        """Key -> spec."""
        ...

    def read_many(self, keys: Iterable[str]) -> dict[str, Array]:
        """Return the values of some keys."""
        ...


def create(
    prefix: str | os.PathLike[str],
    specs: Mapping[str, TensorSpec] | None = None,
    layout: Layout | None = None,
    *,
    sharding: Sharding | None = None,
    overwrite: bool = False,
    durability: Durability = "power-loss",
    update_manifest: bool | ManifestUpdate = False,
    store: WritableStore | None = None,
) -> CheckpointWriter:
    """Begin a checkpoint that is written tensor by tensor; use it in a ``with`` block.

        with openckpt.create("run/ckpt-1", specs={"w": TensorSpec("float32", (2, 3), None)}) as writer:
            writer.add("w", array)

    It never holds more than one tensor beyond the caller's. Nothing is visible under the prefix before the block ends, and an
    error in it leaves everything as it was.

    Args:
        prefix: path without ``.index``; missing directories are made.
        specs: key -> `TensorSpec` of every tensor. ``nbytes`` may be None; of strings and variants it is the bytes that will
            be stored, which only another checkpoint knows. With specs, tensors may be added in any order, and each goes to its
            place; a missing or foreign key, another dtype, shape or size abandons the checkpoint.
        layout: ``"dual"``: each data file is a safetensors file too (the default where specs are given);
            ``"tensorflow"``: byte for byte what TensorFlow writes (the default, and the only one, without specs).
        sharding: which tensors go into which data file, `MaxShardSize` or `ByGroup`; one file when not given. Needs specs.
        overwrite: allow a checkpoint of this name to be replaced; it is switched in one moment.
        durability: ``"power-loss"`` syncs at every barrier, ``"process-crash"`` never; the result says which holds.
        update_manifest: make it the newest in the directory's manifest, the file ``checkpoint``; or a function from the present
            bytes of the manifest, None where there is none, to the new ones.
        store: where to write; the local disk when not given.

    Raises:
        ValueError: layout and specs do not go together.
        UnsupportedError: the prefix has no name (``writing.prefix``).
        ConflictError: (when the block is entered) a checkpoint of this name exists and ``overwrite`` is False
            (``commit.exists``), or somebody else is saving it (``commit.locked``).
        OSError: as the system says, with a note that names the call; ENOSPC also where the room that is needed is not there.
    """
    prefix = os.fsdecode(prefix)
    return CheckpointWriter(
        prefix,
        announced=None if specs is None else Announced(plain_specs(specs, prefix)),
        layout=layout or ("tensorflow" if specs is None else "dual"),
        sharding=sharding,
        overwrite=overwrite,
        durability=durability,
        update_manifest=update_manifest,
        store=store,
    )


def save(
    prefix: str | os.PathLike[str],
    tensors: Mapping[str, Value] | OpenedCheckpoint,
    *,
    layout: Layout = "dual",
    dtypes: Mapping[str, str] | None = None,
    sharding: Sharding | None = None,
    overwrite: bool = False,
    durability: Durability = "power-loss",
    update_manifest: bool | ManifestUpdate = False,
    store: WritableStore | None = None,
) -> SavedPath:
    """Save tensors as a checkpoint that stock TensorFlow reads, and return when no crash can take it away.

    Args:
        prefix: path without ``.index``, for example ``"run/ckpt-1"``; missing directories are made.
        tensors: key -> value: numpy arrays or what numpy makes arrays of, text and bytes and arrays of them, `Variant`; or an
            opened checkpoint, whose data types are kept.
        layout: ``"dual"``: each data file is a complete safetensors file at the same time; ``"tensorflow"``: byte for byte what
            TensorFlow writes for the same tensors in the same order.
        dtypes: key -> TensorFlow's name of the type where the array does not tell it: ``{"w": "qint8"}``.
        sharding: `MaxShardSize`, `ByGroup`, or a policy of your own; one data file when not given.
        overwrite: allow a checkpoint of this name to be replaced; readers see the old one or the new one, never a mixture.
        durability: ``"power-loss"``: everything is synced in order; ``"process-crash"``: nothing is, which survives a kill of
            this program but not of the machine.
        update_manifest: make it the newest in the directory's manifest, so that ``latest_checkpoint`` finds it; or a function from
            the present bytes of the manifest, None where there is none, to the new ones.
        store: where to write; the local disk when not given.

    Returns:
        The prefix, with ``.step``, ``.durability`` (what really holds) and ``.nbytes``.

    Raises:
        ConflictError: a checkpoint of this name exists and ``overwrite`` is False (``commit.exists``), or another program or
            thread is saving it (``commit.locked``).
        UnsupportedError: a key or value that no checkpoint holds (``writing.*``); nothing was written.
        MismatchError: ``dtypes`` asks for a type that an array cannot be stored as (``writing.wrong-dtype``).
        OSError: as the system says; nothing new is visible and nothing old is harmed, or a note says what is.
    """
    prefix = os.fsdecode(prefix)
    opened = _as_opened(tensors)
    values: Mapping[str, Value] = {}
    if opened is not None:
        if dtypes:
            raise ValueError("an opened checkpoint keeps its data types; dtypes is for arrays")
        draft = _draft_of_opened(opened)
    elif isinstance(tensors, Mapping):
        values = with_text_keys(tensors, prefix)
        with collection_held():
            draft = draft_of(prefix, values, with_text_keys(dtypes or {}, prefix))
    else:
        raise TypeError(
            f"tensors is a mapping from key to array, or an opened checkpoint; not a {type(tensors).__name__}"
        )
    writer = CheckpointWriter(
        prefix,
        announced=draft.announced,
        layout=layout,
        sharding=sharding,
        overwrite=overwrite,
        durability=durability,
        update_manifest=update_manifest,
        store=store,
    )
    with writer:
        if opened is not None:
            for key, value in _read_in_order(opened, writer.order):
                writer.add(key, value)
        else:
            writer.put_all({**values, **draft.ready} if draft.ready else values)
    assert writer.result is not None
    return writer.result


class Draft(NamedTuple):
    """What is known of a checkpoint before it is laid out; ``ready`` is what had to be encoded to know it."""

    announced: Announced
    ready: Mapping[str, Stored | Sliced]


def _as_opened(tensors: Any) -> OpenedCheckpoint | None:
    return tensors if hasattr(tensors, "read_many") and hasattr(tensors, "specs") else None


def draft_of(prefix: str, values: Mapping[str, Value], dtypes: Mapping[str, str]) -> Draft:
    """Return what is known of values before they are written."""
    import numpy as np

    foreign = dtypes.keys() - values.keys()
    if foreign:
        raise NotFoundError(
            "writing.foreign-key", Where(prefix, min(foreign)), "dtypes names a tensor that is not saved"
        )
    specs: dict[str, TensorSpec] = {}
    pieces: dict[str, tuple[Extents, ...]] = {}
    counted: dict[str, int] = {}
    ready: dict[str, Stored | Sliced] = {}
    known: dict[tuple[object, tuple[int, ...]], TensorSpec] = {}  # one object for many tensors: layouts group by it
    for key, value in values.items():
        if type(value) is np.ndarray and key not in dtypes:
            spec = known.get((value.dtype, value.shape))
            if spec is not None:
                specs[key] = spec
                continue
        where = Where(prefix, key)
        named = dtypes.get(key)
        if isinstance(value, Sliced):
            specs[key], pieces[key] = check_pieces(value, named, where)
            ready[key] = value
            continue
        dtype, shape, nbytes = describe(value, named, where)
        if nbytes is not None:
            specs[key] = TensorSpec(dtype.name, shape, nbytes)
            if type(value) is np.ndarray and named is None:
                known[value.dtype, shape] = specs[key]
            continue
        # Text and variants have no size before they are encoded.
        ready[key] = stored = encode(value, dtype, where)
        counted[key] = text_bytes(value, where) if dtype.name == "string" else 0
        specs[key] = TensorSpec(dtype.name, shape, len(stored.data))
    return Draft(Announced(specs, pieces, counted), ready)


def _draft_of_opened(opened: OpenedCheckpoint) -> Draft:
    specs = dict(opened.specs)
    for key, spec in specs.items():
        # Other formats store text otherwise; and of no text at all a bundle may hold four bytes or none (formats 2.7).
        if spec.dtype in ("string", "variant") and (opened.format != "bundle-v2" or not spec.size):
            specs[key] = spec._replace(nbytes=None)
    return Draft(Announced(specs), {})


def _read_in_order(opened: OpenedCheckpoint, order: Sequence[str]) -> Iterator[tuple[str, Array]]:
    """Yield the tensors, small ones read many at a time."""
    specs = opened.specs
    batch: list[str] = []
    size = 0
    for key in order:
        nbytes = specs[key].nbytes or 0
        if batch and size + nbytes > _READ_BYTES:
            yield from opened.read_many(batch).items()
            batch, size = [], 0
        batch.append(key)
        size += nbytes
    if batch:
        yield from opened.read_many(batch).items()
