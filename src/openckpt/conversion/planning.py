"""What a conversion will do, decided before anything is written: which tensors, as which types; or why it cannot be done."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import translate
from typing import TYPE_CHECKING, NamedTuple

from openckpt.conversion.result import TargetFormat
from openckpt.errors import NotFoundError, UnsupportedError, Where, shown
from openckpt.formats.dtypes import BY_NAME
from openckpt.formats.flat import checked_shape
from openckpt.formats.spec import GRAPH_KEY, TensorSpec
from openckpt.writing.keys import encode_key

if TYPE_CHECKING:
    from openckpt.opening import CheckpointReader

_NAMELESS = frozenset(("hdf5", "npz"))
"""formats that take any key, the empty one too"""


class Row(NamedTuple):
    """One tensor of the plan.

    Attributes:
        key: its key.
        spec: in the source.
        dtype: in the target; TensorFlow's name.
        nbytes: of a string or variant tensor in the target; None where it does not matter, or for numbers.
    """

    key: str
    spec: TensorSpec
    dtype: str
    nbytes: int | None = None

    @property
    def target(self) -> TensorSpec:
        """The spec in the target."""
        itemsize = BY_NAME[self.dtype].itemsize
        return TensorSpec(self.dtype, self.spec.shape, self.spec.size * itemsize if itemsize else self.nbytes)


@dataclass(frozen=True, slots=True)
class Plan:
    """The decisions.

    Attributes:
        rows: the tensors to convert, in the order of the source.
        total: tensors in the source.
        filtered: keys that the filters left out.
        notes: what to know, one sentence each.
    """

    rows: tuple[Row, ...]
    total: int
    filtered: tuple[str, ...]
    notes: tuple[str, ...]


def plan_conversion(
    ckpt: CheckpointReader,
    to: TargetFormat,
    *,
    casts: Mapping[str, str],
    include: Iterable[str] = (),
    exclude: Iterable[str] = (),
) -> Plan:
    """Decide what to convert.

    Raises:
        NotFoundError: the filters leave nothing (``convert.nothing``).
        UnsupportedError: a tensor that cannot be read (``convert.unreadable``), or a key that the target cannot hold
            (``convert.key``).
        LimitError: a shape that no array can have.
    """
    rows: list[Row] = []
    filtered: list[str] = []
    unreadable: list[str] = []
    wanted, unwanted = _Patterns(include), _Patterns(exclude)
    for key, spec in ckpt.specs.items():
        if unwanted.match(key) or (wanted.given and not wanted.match(key)):
            filtered.append(key)
        elif spec.dtype not in BY_NAME or spec.dtype == "resource" or spec.shape is None:
            unreadable.append(key)
        else:
            checked_shape(spec, Where(ckpt.prefix, key))
            rows.append(Row(key, spec, casts.get(spec.dtype, spec.dtype)))
    if unreadable:
        message = f"{len(unreadable)} tensors cannot be read: {shown(unreadable)}"
        raise UnsupportedError("convert.unreadable", Where(ckpt.prefix), message)
    if not rows:
        message = f"0 of {len(ckpt)} tensors are left to convert"
        raise NotFoundError("convert.nothing", Where(ckpt.prefix), message)
    if to not in _NAMELESS:
        _check_keys(ckpt.prefix, rows)
    return Plan(tuple(rows), len(ckpt), tuple(filtered), tuple(_notes(ckpt, rows, filtered, (wanted, unwanted))))


class _Patterns:
    """Globs over keys, as ``openckpt ls -g``: ``*`` crosses ``/``."""

    def __init__(self, globs: Iterable[str]) -> None:
        self._globs = [(glob, re.compile(translate(glob)).match) for glob in globs]
        self._met: set[str] = set()
        self.given = bool(self._globs)

    def match(self, key: str) -> bool:
        met = [glob for glob, match in self._globs if match(key)]
        self._met.update(met)
        return bool(met)

    def idle(self) -> list[str]:
        """Return the globs that matched nothing."""
        return [glob for glob, _ in self._globs if glob not in self._met]


def _check_keys(path: str, rows: list[Row]) -> None:
    for row in rows:
        try:
            encode_key(row.key, path)
        except UnsupportedError as error:
            message = f"the target cannot hold this key: {error.message}"
            raise UnsupportedError(
                "convert.key", Where(path, row.key[:80]), message, expected=error.expected, found=error.found
            ) from None


def _notes(
    ckpt: CheckpointReader, rows: list[Row], filtered: list[str], patterns: tuple[_Patterns, _Patterns]
) -> Iterable[str]:
    for glob in (*patterns[0].idle(), *patterns[1].idle()):
        yield f"the pattern {glob!r} matches no key"
    if any(row.key == GRAPH_KEY for row in rows) and filtered:
        yield (
            f"the object graph still names the {len(filtered)} tensors that were left out: TensorFlow restores the others with "
            "Checkpoint.restore(...).expect_partial()"
        )
    attributes = getattr(ckpt.reader, "attributes", None)
    if ckpt.format == "keras-v3" or getattr(attributes, "has_model_config", False):
        yield "the configuration of the Keras model is no tensor and stays in the source"
    metadata = {name for name in getattr(ckpt.reader, "metadata", {}) if name not in ("format", "openckpt")}
    if metadata:
        yield f"the metadata of the safetensors file stays in the source: {shown(sorted(metadata))}"


def key_bytes(key: str) -> bytes:
    """Return a key as the index of a checkpoint holds it; tensors are ordered by these bytes."""
    return key.encode("utf-8", "surrogateescape")


def checkpoint_order(rows: Iterable[Row]) -> list[Row]:
    """Return tensors in the order of an index, so that equal tensors give equal files from whatever source."""
    return sorted(rows, key=lambda row: key_bytes(row.key))
