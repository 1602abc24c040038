"""Putting stored values into live objects: everything is checked before the first assignment.

    1  every bound value: is the key there, do dtype and shape fit, does the checksum hold      nothing is assigned yet
    2  values are read again, into the objects' own memory where they have it, and assigned
    3  objects that could not be changed are replaced in what holds them, up to something that can be changed

Both passes read one opened checkpoint. Should the file change in between, the second checksum notices, and the error names
what had been assigned.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

from openckpt.errors import CheckpointError, MismatchError, NotFoundError, Where, shown
from openckpt.formats.spec import TensorSpec
from openckpt.training.binding import Binding, Bound
from openckpt.training.live import LiveGraph, LiveNode

if TYPE_CHECKING:
    from collections.abc import Iterable

    from openckpt.formats.spec import Array

_BATCH_BYTES = 32 << 20
_SHOWN = 8  # values that do not fit, in one message


class StoredValues(Protocol):
    """What restoring needs of an opened checkpoint: `openckpt.CheckpointReader` has it."""

    prefix: str

    @property
    def specs(self) -> Mapping[str, TensorSpec]:
        """Key -> spec."""
        ...

    def __contains__(self, key: object) -> bool: ...

    def read_many(self, keys: Iterable[str], *, out: Mapping[str, Array] | None = None) -> dict[str, Array]:
        """Return values, checksums checked."""
        ...


def check_values(stored: StoredValues, binding: Binding, *, cast: bool) -> list[Bound]:
    """Return the values that can be restored; nothing is assigned.

    Left out are attributes whose tensor was never stored because the variable had no value, and those that old writers
    marked as optional.

    Raises:
        NotFoundError: the graph names keys that are not in the file; all of them (``training.missing-keys``).
        MismatchError: values do not fit; all of them (``training.mismatch``).
        CorruptionError: a checksum does not hold.
    """
    specs = stored.specs
    values = binding.values
    below = [key for keys in binding.absorbed.values() for key in keys.values()]
    missing = [key for key in (*(bound.key for bound in values), *below) if key not in stored]
    if missing:
        raise NotFoundError(
            "training.missing-keys",
            Where(stored.prefix, missing[0]),
            f"the object graph names {len(missing)} tensors that are not in the checkpoint: {shown(missing)}",
        )
    wrong = []
    for bound in values:
        why = bound.leaf.refusal(specs[bound.key], cast=cast)
        if why is not None:
            wrong.append(f"{bound.node.label()}: {why}")
    wrong += _examine(stored, binding)
    if wrong:
        more = f"; and {len(wrong) - _SHOWN} more" if len(wrong) > _SHOWN else ""
        raise MismatchError(
            "training.mismatch",
            stored.prefix,
            f"{len(wrong)} of {len(values)} stored values do not fit the program, so nothing was restored: "
            f"{'; '.join(wrong[:_SHOWN])}{more}",
        )
    return list(values)


def _examine(stored: StoredValues, binding: Binding) -> list[str]:
    """Return why objects whose state is one piece cannot take the stored one."""
    wrong = []
    own = {bound.node: bound.key for bound in binding.values}
    for node, below in binding.absorbed.items():
        if node.view.examine is None or node not in own or stored.specs[own[node]].dtype != "string":
            continue
        state = stored.read_many([own[node]])[own[node]]
        why = node.view.examine(state.item(), {name: stored.specs[key] for name, key in below.items()})
        if why is not None:
            wrong.append(f"{node.label()}: {why}")
    return wrong


def prove_values(stored: StoredValues, values: Sequence[Bound]) -> None:
    """Read every value once and check its checksum; raises CorruptionError."""
    import numpy as np

    specs = stored.specs
    scratch: dict[tuple[str, tuple[int, ...] | None, int], Array] = {}
    for batch in _batches(specs, values):
        out = {}
        for number, bound in enumerate(batch):
            spec = specs[bound.key]
            if spec.dtype in ("string", "variant"):
                continue
            # The same few arrays again and again: fresh memory costs more than reading.
            place = (spec.dtype, spec.shape, number if (spec.nbytes or 0) < _BATCH_BYTES else 0)
            if place not in scratch:
                if len(scratch) > 4096:
                    scratch.clear()
                scratch[place] = np.empty(spec.shape or (), spec.numpy_dtype)
            out[bound.key] = scratch[place]
        _read(stored, [bound.key for bound in batch], out)


def assign_values(
    stored: StoredValues, live: LiveGraph, binding: Binding, values: Sequence[Bound]
) -> dict[LiveNode, object]:
    """Read and assign values that `check_values` allowed; return the nodes whose object is another one now.

    Raises:
        CheckpointError: the file changed since it was checked; the error says how many values had been assigned.
    """
    specs = stored.specs
    changed: dict[LiveNode, object] = {}
    done = 0
    try:
        for batch in _batches(specs, [bound for bound in values if bound.node not in binding.absorbed]):
            out = {}
            for bound in batch:
                buffer = bound.leaf.buffer()
                spec = specs[bound.key]
                if buffer is not None and buffer.shape == spec.shape and buffer.dtype == spec.numpy_dtype:
                    out[bound.key] = buffer
            found = _read(stored, [bound.key for bound in batch], out)
            for bound in batch:
                new = bound.leaf.assign(found[bound.key])
                if new is not bound.node.object:
                    changed[bound.node] = new
                done += 1
        for node, below in binding.absorbed.items():
            new = _absorb(stored, node, below, [bound for bound in values if bound.node is node])
            if new is not node.object:
                changed[node] = new
            done += 1
    except CheckpointError as error:
        if done:
            error.add_note(
                f"{done} of {len(values)} values had been assigned: the checkpoint changed while it was restored"
            )
        raise
    return changed


def _absorb(stored: StoredValues, node: LiveNode, below: Mapping[str, str], own: Sequence[Bound]) -> object:
    found = stored.read_many([*(bound.key for bound in own), *below.values()])
    assert node.view.absorb is not None
    state = next((bound.leaf.assign(found[bound.key]) for bound in own), None)
    return node.view.absorb(state, {name: found[key] for name, key in below.items()})


def replace_objects(live: LiveGraph, changed: Mapping[LiveNode, object]) -> dict[LiveNode, object]:
    """Put new objects into what holds them; return every node whose object is another one now, the root maybe among them."""
    parents: dict[LiveNode, list[tuple[LiveNode, str]]] = {}
    for node in live.nodes:
        for name, child, _ in node.children:
            parents.setdefault(child, []).append((node, name))
    replaced = dict(changed)
    waiting = list(changed)
    while waiting:
        news: dict[LiveNode, dict[str, object]] = {}
        for child in waiting:
            for parent, name in parents.get(child, ()):
                news.setdefault(parent, {})[name] = replaced[child]
        waiting = []
        for parent, items in news.items():
            if parent.view.replace is None:
                raise MismatchError(
                    "training.cannot-replace",
                    Where("", parent.label()),
                    f"a {parent.view.kind} cannot take new objects",
                )
            known = {name: replaced[child] for name, child, _ in parent.children if child in replaced}
            new = parent.view.replace({**known, **items})
            if new is not parent.object:
                replaced[parent] = new
                waiting.append(parent)
    return replaced


def _read(stored: StoredValues, keys: Sequence[str], out: Mapping[str, Array]) -> dict[str, Array]:
    """Return values, read into the arrays of ``out`` where that has one."""
    found = stored.read_many(list(out), out=out) if out else {}
    others = [key for key in keys if key not in out]
    if others:
        found.update(stored.read_many(others))
    return found


def _batches(specs: Mapping[str, TensorSpec], values: Sequence[Bound]) -> Iterator[list[Bound]]:
    batch: list[Bound] = []
    size = 0
    for bound in values:
        nbytes = specs[bound.key].nbytes or 0
        if batch and size + nbytes > _BATCH_BYTES:
            yield batch
            batch, size = [], 0
        batch.append(bound)
        size += nbytes
    if batch:
        yield batch
