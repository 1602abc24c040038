"""Files that belong to different saves: the index of one step over the data of another, and steps of different models.

A data file copied, synchronised or overwritten apart from its index has the right size and the wrong bytes: every tensor that
changed between the two saves fails its checksum (formats 9, row 24). The index of the true step then proves whose data it is,
because the checksums it holds are those of the bytes found here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

from openckpt.errors import CheckpointError
from openckpt.findings import Finding, make_finding
from openckpt.formats.spec import GRAPH_KEY, VALUE_SUFFIX, Extent, TensorReader, TensorSpec

_SAMPLE_KEYS = 16
_SAMPLE_BYTES = 16 << 20
_ENCODED = ("string", "variant")
COUNTERS = ("save_counter" + VALUE_SUFFIX, "global_step")

ReadExtent = Callable[[Extent], bytes]


def find_true_step(
    reader: TensorReader,
    failed: Sequence[str],
    siblings: Iterable[tuple[str, TensorReader]],
    read: ReadExtent,
) -> str | None:
    """Return the prefix of the sibling step whose index describes the bytes found under ``reader``, or None.

    At most 16 of the ``failed`` keys are compared, none larger than 16 MiB; all of them must agree.
    """
    from openckpt.formats.crc import crc32c

    samples: list[tuple[str, int, Extent, int]] = []
    try:
        for key, number, extent in islice(_comparable(reader, failed), _SAMPLE_KEYS):
            samples.append((key, number, extent, crc32c(read(extent))))
    except (CheckpointError, OSError):
        return None
    if not samples:
        return None
    for prefix, sibling in siblings:
        try:
            if all(_holds(sibling, key, number, extent, crc) for key, number, extent, crc in samples):
                return prefix
        except CheckpointError:
            continue
    return None


def _comparable(reader: TensorReader, keys: Sequence[str]) -> Iterator[tuple[str, int, Extent]]:
    """Yield ``(key, number of the piece, place)`` of pieces whose checksum is that of their stored bytes."""
    for key in keys:
        if reader.spec(key).dtype in _ENCODED:
            continue  # theirs is not over the stored bytes alone (formats 2.7)
        for number, extent in enumerate(reader.locate(key)):
            if 0 < extent.nbytes <= _SAMPLE_BYTES and extent.crc is not None:
                yield key, number, extent


def _holds(sibling: TensorReader, key: str, number: int, mine: Extent, crc: int) -> bool:
    extents = sibling.locate(key) if key in sibling else ()
    if number >= len(extents):
        return False
    other = extents[number]
    return (other.offset, other.nbytes, other.crc) == (mine.offset, mine.nbytes, crc)


def read_counter(reader: TensorReader) -> tuple[str, int] | None:
    """Return ``(key, value)`` of the step counter in the data, unchecked, or None where there is none or it cannot be read."""
    for key in COUNTERS:
        if key in reader:
            spec = reader.spec(key)
            if spec.shape == () and spec.dtype in ("int64", "int32"):
                try:
                    return key, int(reader.read(key, verify=False))
                except (CheckpointError, OSError):
                    return None
    return None


@dataclass(frozen=True, slots=True)
class Difference:
    """How the tensors of one step differ from those of the newest."""

    changed: tuple[str, ...]
    """keys of both steps with another dtype or shape"""
    missing: int
    """keys that only the newest has"""
    extra: int
    """keys that only the other has"""
    other_model: bool
    """whether no ordinary course of one training explains the difference"""


def difference(newest: Mapping[str, TensorSpec], other: Mapping[str, TensorSpec]) -> Difference:
    """Compare keys, dtypes and shapes of two steps of one run.

    A training adds tensors as it goes (optimizer slots appear with the first gradient), and object-based keys of one and the
    same variable change when that happens (formats 6.5), so keys alone prove nothing: two steps are of different models when
    neither holds all the tensor shapes of the other. Keys of name-based checkpoints are variable names and do not move: there
    one changed shape is enough.
    """
    common = newest.keys() & other.keys()
    changed = [
        key
        for key, spec in other.items()
        if key in common
        and (spec.dtype, spec.shape) != (newest[key].dtype, newest[key].shape)
        and not _varies(key, spec)
    ]
    mine, theirs = _shapes(newest), _shapes(other)
    by_name = GRAPH_KEY not in newest and GRAPH_KEY not in other
    other_model = bool(mine - theirs and theirs - mine) or bool(changed and by_name)
    return Difference(tuple(changed), len(newest) - len(common), len(other) - len(common), other_model)


def _shapes(specs: Mapping[str, TensorSpec]) -> Counter[tuple[str, tuple[int, ...] | None]]:
    return Counter((spec.dtype, spec.shape) for key, spec in specs.items() if not _varies(key, spec))


def _varies(key: str, spec: TensorSpec) -> bool:
    # Lookup tables and dataset iterators grow and shrink while a model trains; their tensors have no fixed shape.
    return spec.dtype in _ENCODED or key.endswith(("-keys", "-values", "/keys", "/values", "ITERATOR_STATE"))


def compare_steps(
    newest_prefix: str, newest: Mapping[str, TensorSpec], others: Iterable[tuple[str, Mapping[str, TensorSpec]]]
) -> list[Finding]:
    """Return what is odd about the steps of one run being saves of one model: ``run.mixed-models`` or ``run.grown``."""
    findings = []
    for prefix, specs in others:
        found = difference(newest, specs)
        if found.other_model:
            findings.append(_mixed(newest_prefix, prefix, found))
        elif found.missing or found.extra:
            what = f"{found.missing} tensors fewer" if found.missing else f"{found.extra} tensors more"
            findings.append(make_finding("run.grown", prefix, f"{what} than the newest step {newest_prefix}"))
    return findings


def _mixed(newest_prefix: str, prefix: str, found: Difference) -> Finding:
    parts = []
    if found.changed:
        named = ", ".join(found.changed[:3]) + (" ..." if len(found.changed) > 3 else "")
        parts.append(f"{len(found.changed)} tensors have other shapes or dtypes ({named})")
    if found.extra or found.missing:
        parts.append(f"{found.extra} tensors only here, {found.missing} only there")
    return make_finding(
        "run.mixed-models",
        prefix,
        f"not a save of the same model as the newest step {newest_prefix}: {'; '.join(parts)}",
    )
