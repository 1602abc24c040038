"""Putting stored values into live objects: everything is checked before the first assignment.

    1  every bound value: is the key there, do dtype and shape fit, does the text parse, can it be     nothing is assigned yet
       put where it belongs, does its checksum hold
    2  objects whose state is one piece get it first, because only they can still refuse; then they are put back as they were
    3  values are read again, into the objects' own memory where they have it, and assigned
    4  objects that could not be changed are replaced in what holds them, up to something that can be changed

Both passes read one opened checkpoint. Should the file change in between, the second checksum notices, and the error names
what had been assigned.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from openckpt.errors import MismatchError, NotFoundError, Where, shown, with_article
from openckpt.formats.collecting import collection_held
from openckpt.formats.dtypes import BY_NAME
from openckpt.formats.spec import TensorSpec
from openckpt.training.absorbing import absorb_states
from openckpt.training.binding import Binding, Bound
from openckpt.training.casting import Casts
from openckpt.training.leaves import FLOATS
from openckpt.training.live import LiveGraph, LiveNode
from openckpt.training.scratch import Scratch
from openckpt.training.tracking import PY_STATE

if TYPE_CHECKING:
    from collections.abc import Iterable

    from openckpt.formats.dtypes import DType
    from openckpt.formats.spec import Array

_BATCH_BYTES = 32 << 20
_LIGHT_BYTES = 256 << 20
_SHOWN = 8  # values that do not fit, in one message
_MANY = 64  # keys from which on one walk over the index is faster than as many look-ups


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

    def check_many(self, keys: Iterable[str]) -> None:
        """Raise where values do not have their checksum; no array is made."""
        ...


class Checked(NamedTuple):
    """What can be restored: `check_values` made sure.

    Attributes:
        values: to be read and assigned one by one; those of objects whose state is one piece are not among them.
        states: objects whose state is one piece -> ``(its key, the keys of its arrays by name)``.
        specs: of every key in these two.
        casts: what `assign_values` has cast; None where nothing may be.
        torn: what gets one of several stored values that differ, with their keys.
    """

    values: list[Bound]
    states: dict[LiveNode, tuple[str, dict[str, str]]]
    specs: Mapping[str, TensorSpec]
    casts: Casts | None
    torn: list[str]

    def nodes(self) -> set[LiveNode]:
        """Return the live objects that get values."""
        return {bound.node for bound in self.values} | self.states.keys()

    def cast_to(self, bound: Bound) -> DType | None:
        """Return the type of float that a value is cast to, None where it fits as it is."""
        stored = self.specs[bound.key].dtype
        own = bound.leaf.spec() if self.casts is not None and stored in FLOATS else None
        return None if own is None or own.dtype == stored or own.dtype not in FLOATS else BY_NAME[own.dtype]

    @property
    def is_light(self) -> bool:
        """Whether there is more to do for the processor than for the disk."""
        return len(self.values) > _MANY and sum(spec.nbytes or 0 for spec in self.specs.values()) < _LIGHT_BYTES

    def keys(self) -> list[str]:
        """Return all keys, each once."""
        below = (key for own, arrays in self.states.values() for key in (own, *arrays.values()))
        return list(dict.fromkeys((*(bound.key for bound in self.values), *below)))


def check_values(stored: StoredValues, binding: Binding, *, cast: bool) -> Checked:
    """Return what can be restored; nothing is assigned, and no tensor read.

    Raises:
        NotFoundError: the graph names keys that are not in the file; all of them (``training.missing-keys``).
        MismatchError: values do not fit, or cannot be put where they belong; all of them (``training.mismatch``).
        CorruptionError: a piece of Python state is none (``training.bad-state``).
    """
    specs = _specs_of(stored, binding)
    _check_keys(stored, binding, specs)
    values = [bound for bound in binding.values if bound.key in specs]
    wrong = []
    for bound in values:
        why = bound.leaf.refusal(specs[bound.key], cast=cast)
        if why is not None:
            wrong.append(f"{bound.label()}: {why}")
    states = {
        bound.node: (bound.key, binding.absorbed[bound.node]) for bound in values if bound.node in binding.absorbed
    }
    if not wrong:
        wrong = [*_unfit_texts(stored, values, states, specs), *_unreplaceable(values)]
    if wrong:
        more = f"; and {len(wrong) - _SHOWN} more" if len(wrong) > _SHOWN else ""
        raise MismatchError(
            "training.mismatch",
            stored.prefix,
            f"{len(wrong)} of {len(values)} stored values do not fit the program, so nothing was restored: "
            f"{'; '.join(wrong[:_SHOWN])}{more}",
        )
    return Checked(
        [bound for bound in values if bound.node not in states],
        states,
        specs,
        Casts() if cast else None,
        list(_torn(stored, binding)),
    )


def _specs_of(stored: StoredValues, binding: Binding) -> Mapping[str, TensorSpec]:
    keys = [bound.key for bound in binding.values]
    keys += [key for below in binding.absorbed.values() for key in below.values()]
    if len(keys) < _MANY:
        return {key: stored.specs[key] for key in keys if key in stored}
    specs = dict(stored.specs.items())
    return {key: specs[key] if specs[key].shape is not None else stored.specs[key] for key in keys if key in specs}


def _check_keys(stored: StoredValues, binding: Binding, specs: Mapping[str, TensorSpec]) -> None:
    missing = [bound.key for bound in binding.values if bound.key not in specs and not bound.is_optional]
    missing += [key for below in binding.absorbed.values() for key in below.values() if key not in specs]
    if missing:
        raise NotFoundError(
            "training.missing-keys",
            Where(stored.prefix, missing[0]),
            f"the object graph names {len(missing)} tensors that are not in the checkpoint: {shown(missing, _SHOWN)}",
        )


def _torn(stored: StoredValues, binding: Binding) -> Iterator[str]:
    """Yield the objects for which the file has several values that differ: they get the first, as in TensorFlow.

    So it is after ``target = params``, saved when the two had drifted apart, and restored into a program where they have not yet.
    """
    firsts = {(bound.node, bound.leaf.attribute): bound.key for bound in binding.values} if binding.second else {}
    for bound in binding.second:
        first = firsts.get((bound.node, bound.leaf.attribute))
        if first is None or first == bound.key or not (first in stored and bound.key in stored):
            continue
        if not _equal(stored, first, bound.key):
            yield f"{bound.node.label()} is one object here and two that differ in the file: {first!r}, {bound.key!r}"
    binding.second.clear()  # they hold objects that may be replaced


def _equal(stored: StoredValues, one: str, other: str) -> bool:
    specs = stored.specs
    if specs[one][:2] != specs[other][:2]:
        return False
    a, b = (stored.read_many([key])[key] for key in (one, other))
    if a.dtype.kind == "O":
        return bool((a == b).all())
    return a.tobytes() == b.tobytes()


def _unfit_texts(
    stored: StoredValues,
    values: Sequence[Bound],
    states: Mapping[LiveNode, tuple[str, dict[str, str]]],
    specs: Mapping[str, TensorSpec],
) -> Iterator[str]:
    """Yield why Python state cannot be taken, which only its text tells."""
    texts = [bound for bound in values if bound.leaf.attribute == PY_STATE and specs[bound.key].dtype == "string"]
    found = stored.read_many([bound.key for bound in texts]) if texts else {}
    for bound in texts:
        text = found[bound.key].item()
        examine = getattr(bound.leaf, "examine", None)
        why = None if examine is None else examine(text, Where(stored.prefix, bound.key))
        view = bound.node.view
        if why is None and bound.node in states and view.examine is not None:
            why = view.examine(text, {name: specs[key] for name, key in states[bound.node][1].items()})
        if why is not None:
            yield f"{bound.node.label()}: {why}"


def _unreplaceable(values: Sequence[Bound]) -> Iterator[str]:
    """Yield what would need a new object in the place of an old one where that cannot be done."""
    for bound in values:
        node = bound.node
        if getattr(bound.leaf, "in_place", True):
            continue
        while node.parent is not None:
            node = node.parent[0]
            if node.view.replace is None and node.view.absorb is None:
                yield f"{bound.node.label()}: it cannot be changed in place, and a {node.view.kind} takes no new objects"
            if not node.view.is_rebuilt:
                break


def prove_values(stored: StoredValues, checked: Checked) -> None:
    """Read every value once and check its checksum; raises CorruptionError."""
    with collection_held(when=checked.is_light):
        stored.check_many(checked.keys())


def assign_values(stored: StoredValues, checked: Checked) -> dict[LiveNode, object]:
    """Read and assign what `check_values` allowed; return the nodes whose object is another one now.

    Raises:
        CheckpointError: the file changed since it was checked; a note names the values that had been assigned.
        Exception: what an object raises that does not take its state.
    """
    changed: dict[LiveNode, object] = {}
    done = 0
    try:
        changed |= absorb_states(stored, checked.states)
        done = len(checked.states)
        scratch = Scratch(_BATCH_BYTES + (1 << 20))
        for batch in batches_of(checked.specs, checked.values):
            scratch.reuse()
            with collection_held(when=len(batch) > _MANY):
                for bound, new in _assigned(stored, checked, batch, scratch):
                    done += 1
                    if new is not bound.node.object:
                        changed[bound.node] = new
    except BaseException as error:  # an interrupt too: the program is neither old nor new then
        if done:
            nodes = [*checked.states, *(bound.node for bound in checked.values)]
            names = [node.label() for node in nodes[:done]]
            message = f"{done} of {len(nodes)} values of {stored.prefix} had been assigned when this happened"
            error.add_note(f"{message}: {shown(names, _SHOWN)}")
        raise
    return changed


def _assigned(
    stored: StoredValues, checked: Checked, batch: Sequence[Bound], scratch: Scratch
) -> Iterator[tuple[Bound, object]]:
    """Read a batch and yield each value once it is assigned, with the object that has it now.

    Values are read into the live objects' own memory where they lend it, and cast into it. Of what is copied nothing is left when
    the next batch is read.
    """
    out = {}
    others = []
    casts: list[tuple[DType, Array | None] | None] = []
    held: dict[str, Any] = {}  # dtype of a spec -> numpy's
    for bound in batch:
        lent, spec = bound.leaf.buffer(), checked.specs[bound.key]
        if lent is not None and lent.shape != spec.shape:
            lent = None
        copies = getattr(bound.leaf, "copies", False)
        dtype = None if checked.casts is None else checked.cast_to(bound)
        if lent is not None and spec.dtype not in held:
            held[spec.dtype] = spec.numpy_dtype
        target = lent if lent is not None and lent.dtype == held[spec.dtype] else None
        if target is None and (copies or dtype is not None):
            target = scratch.take(spec)
        if dtype is not None and lent is None and copies:
            lent = scratch.take(spec._replace(dtype=dtype.name))
        casts.append(None if dtype is None else (dtype, lent))
        if target is None:
            others.append(bound.key)
        else:
            out[bound.key] = target
    found = stored.read_many(list(out), out=out) if out else {}
    if others:
        found.update(stored.read_many(others))
    for bound, cast in zip(batch, casts, strict=True):
        value = found[bound.key]
        if cast is not None and checked.casts is not None:
            value = checked.casts.cast(value, *cast, bound.node)
        yield bound, bound.leaf.assign(value)


def replace_objects(live: LiveGraph, changed: Mapping[LiveNode, object]) -> dict[LiveNode, object]:
    """Put new objects into what holds them; return every node whose object is another one now, the root maybe among them."""
    if not changed:
        return {}
    parents: dict[LiveNode, dict[LiveNode, None]] = {}
    for node in live.nodes:
        for _, child, _ in node.children:
            if child is not node:  # the root hangs below itself, as "root"
                parents.setdefault(child, {})[node] = None
    replaced = dict(changed)
    waiting: list[LiveNode] = list(changed)
    while waiting:
        above = dict.fromkeys(parent for child in waiting for parent in parents.get(child, ()))
        waiting = []
        for parent in above:
            if parent.view.replace is None:
                if parent.view.absorb is not None:
                    continue
                raise MismatchError(
                    "training.cannot-replace",
                    Where("", parent.label()),
                    f"{with_article(parent.view.kind)} cannot take new objects",
                )
            new = parent.view.replace(
                {name: replaced[child] for name, child, _ in parent.children if child in replaced}
            )
            if new is not parent.object:
                replaced[parent] = new
                waiting.append(parent)
    return replaced


def batches_of(specs: Mapping[str, TensorSpec], values: Sequence[Bound]) -> Iterator[list[Bound]]:
    """Yield values that are read and assigned together: few bytes, so that copies of them are small, or one tensor."""
    batch: list[Bound] = []
    size = 0
    for bound in values:
        again = bool(batch) and batch[-1].key == bound.key  # the parts of one tensor share a copy of it
        nbytes = 0 if again else specs[bound.key].nbytes or 0
        if batch and size + nbytes > _BATCH_BYTES and not again:
            yield batch
            batch, size = [], 0
        batch.append(bound)
        size += nbytes
    if batch:
        yield batch
