"""The specs with which a checkpoint is begun, and whether a value that comes later is what its spec said."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from operator import index

from openckpt.errors import MismatchError, NotFoundError, UnsupportedError, Where
from openckpt.formats.dtypes import BY_NAME
from openckpt.formats.slicekeys import Extents
from openckpt.formats.spec import TensorSpec
from openckpt.writing.keys import decode_key, encode_keys, with_text_keys
from openckpt.writing.values import Sliced, Value, describe


@dataclass(frozen=True, slots=True)
class Announced:
    """The tensors of a checkpoint that is laid out before it is written.

    Attributes:
        specs: key -> spec; ``nbytes`` None where the stored size is not known yet.
        pieces: key -> the pieces in which the caller has a tensor.
        counted: key -> bytes of a string tensor by which a policy cuts data files.
    """

    specs: Mapping[str, TensorSpec]
    pieces: Mapping[str, Sequence[Extents]] = field(default_factory=dict)
    counted: Mapping[str, int] = field(default_factory=dict)


def plain_specs(specs: Mapping[str, TensorSpec], path: str) -> dict[str, TensorSpec]:
    """Return specs as a caller gave them with text keys, shapes that are tuples of Python's own integers, and sizes where they follow.

    Raises:
        UnsupportedError: no key of a tensor (``writing.key``), or two keys are the same bytes (``writing.duplicate-key``).
        TypeError: something else than a `TensorSpec`.
    """
    found = {}
    for key, spec in with_text_keys(specs, path).items():
        if not isinstance(spec, tuple) or not 2 <= len(spec) <= 3:
            raise TypeError(f"the spec of {key!r} is openckpt.TensorSpec(dtype, shape), not {repr(spec)[:60]}")
        dtype, shape, nbytes = TensorSpec(*spec)
        shape = None if shape is None else tuple(map(index, shape))
        known = BY_NAME.get(dtype)
        if nbytes is None and known is not None and known.itemsize and shape is not None:
            nbytes = prod(shape) * known.itemsize  # so that a full disk is told before the first byte
        found[key] = TensorSpec(dtype, shape, nbytes)
    return found


def check_specs(specs: Mapping[str, TensorSpec], path: str) -> dict[bytes, TensorSpec]:
    """Return the specs under their encoded keys, once all of them can be stored.

    Raises:
        UnsupportedError: a key or a type that no checkpoint holds (``writing.key``, ``writing.resource``, ``writing.dtype``).
        MismatchError: ``nbytes`` is not what dtype and shape come to (``writing.wrong-size``).
    """
    for spec in set(specs.values()):
        _check_spec(spec, specs, path)
    raws = encode_keys(specs, path)
    found = dict(zip(raws, specs.values(), strict=True))
    if len(found) < len(specs):
        twice = next(raw for raw in found if raws.count(raw) > 1)
        where = Where(path, decode_key(twice))
        raise UnsupportedError("writing.duplicate-key", where, "two tensors have this key, once encoded")
    return found


def _check_spec(spec: TensorSpec, specs: Mapping[str, TensorSpec], path: str) -> None:
    dtype = BY_NAME.get(spec.dtype)
    if (
        dtype is not None
        and dtype.name != "resource"
        and spec.shape is not None
        and min(spec.shape, default=0) >= 0
        and (not dtype.itemsize or spec.nbytes in (None, spec.size * dtype.itemsize))
    ):
        return
    where = Where(path, next(key for key, other in specs.items() if other == spec))
    if dtype is not None and dtype.name == "resource":
        raise UnsupportedError("writing.resource", where, "a resource is a handle of a program, not a value")
    if dtype is not None and spec.shape is not None and min(spec.shape, default=0) >= 0:
        message = f"{spec.dtype} of shape {list(spec.shape)} does not take so many bytes"
        raise MismatchError(
            "writing.wrong-size", where, message, expected=spec.size * dtype.itemsize, found=spec.nbytes
        )
    raise UnsupportedError(
        "writing.dtype", where, f"a tensor of type {spec.dtype}, shape {spec.shape} cannot be stored"
    )


def check_value(value: Value, named: str | None, spec: TensorSpec | None, where: Where) -> None:
    """Raise unless a value is what its spec announced.

    Raises:
        NotFoundError: there is no spec (``writing.foreign-key``).
        MismatchError: another type or shape (``writing.wrong-dtype``, ``writing.wrong-shape``).
        UnsupportedError: no value of a checkpoint (``writing.*``).
    """
    if spec is None:
        raise NotFoundError("writing.foreign-key", where, "this key was not announced")
    if isinstance(value, Sliced):
        raise UnsupportedError("writing.slices", where, "this tensor was announced whole")
    if named is None and spec.dtype in _NOT_FROM_NUMPY:
        named = spec.dtype
    dtype, shape, _ = describe(value, named, where)
    if dtype.name != spec.dtype:
        raise MismatchError(
            "writing.wrong-dtype", where, "another type was announced", expected=spec.dtype, found=dtype.name
        )
    if shape != spec.shape:
        raise MismatchError(
            "writing.wrong-shape", where, "another shape was announced", expected=spec.shape, found=shape
        )


_NOT_FROM_NUMPY = frozenset(("qint8", "quint8", "qint16", "quint16", "qint32", "variant"))
"""types whose arrays numpy calls by another name"""
