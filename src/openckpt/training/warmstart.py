"""`init_from_checkpoint`: variables get values of a checkpoint under other names, single ones or whole scopes (formats 7.4).

{"dense/kernel": kernel}             one stored tensor -> one variable
{"dense/kernel": [part_0, part_1]}   one stored tensor -> the parts of a variable, cut along one axis
{"dense/kernel": "layer/w"}          ... by its name in ``variables``; ``layer/w/part_0`` ... are its parts
{"encoder/": "model/encoder/"}       every variable below a scope; "/" is the root, on either side
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, MutableMapping, Sequence
from typing import TYPE_CHECKING, Any

from openckpt.errors import MismatchError, NotFoundError, Where, shown
from openckpt.formats.spec import TensorSpec
from openckpt.training.binding import Bound
from openckpt.training.byname import live_variables, named_leaves, restore_bound
from openckpt.training.leaves import refusal_of
from openckpt.training.tracking import Leaf

if TYPE_CHECKING:
    from openckpt.formats.spec import Array
    from openckpt.opening import CheckpointReader

_PART = re.compile(r"(.*)/part_(\d+)")


def init_from_checkpoint(
    ckpt_dir_or_file: str | os.PathLike[str],
    assignment_map: Mapping[str, object] | Iterable[tuple[str, object]],
    variables: Mapping[str, object] | None = None,
    *,
    cast: bool = False,
) -> None:
    """Give variables the values of a checkpoint, as ``tf.compat.v1.train.init_from_checkpoint`` does, at once.

    Args:
        ckpt_dir_or_file: whatever `openckpt.open` takes.
        assignment_map: stored name or scope -> variable, parts of one in a list, name in ``variables``, or scope there.
        variables: the program's variables by name, for names and scopes. One that cannot be changed in place is new in it.
        cast: restore floats of other widths.

    Raises:
        ValueError: a scope on one side only, a target that ``variables`` does not have.
        NotFoundError: stored names that are not there (``training.missing-names``); nothing was assigned.
        MismatchError: other shapes or types (``training.mismatch``); nothing was assigned.
        PathNotFoundError, FormatError, OSError: as `openckpt.open`.
    """
    from openckpt.opening import open

    pairs = assignment_map.items() if isinstance(assignment_map, Mapping) else assignment_map
    known = {} if variables is None else variables
    with open(ckpt_dir_or_file) as stored:
        wanted: list[tuple[str, list[tuple[str, object]]]] = []
        for number, (name, target) in enumerate(sorted(pairs, key=lambda pair: pair[0])):
            wanted += _targets(name, target, known, number)
        missing = [name for name, _ in wanted if name not in stored]
        if missing:
            raise NotFoundError(
                "training.missing-names",
                Where(stored.prefix, missing[0]),
                f"{len(missing)} of {len(wanted)} names are not in the checkpoint: {shown(missing, 8)}",
            )
        _assign(stored, wanted, known, cast=cast)


def _targets(
    name: str, target: object, known: Mapping[str, object], pair: int
) -> list[tuple[str, list[tuple[str, object]]]]:
    """Return ``(stored name, parts by name)`` of one pair of the map; what has no name is called after the pair and its place."""
    if not isinstance(target, str):
        given = target if isinstance(target, (list, tuple)) else [target]
        return [
            (name, [(_name_in(known, part, f"{name} ({pair}, {number})"), part) for number, part in enumerate(given)])
        ]
    if target in known:
        return [(name, [(target, known[target])])]
    parts = _parts_of(target, known)
    if parts:
        return [(name, parts)]
    if not name.endswith("/"):
        raise ValueError(f"{target!r} is no variable, and {name!r} no scope: a scope ends with '/'")
    if target and not target.endswith("/"):  # TensorFlow takes what stands before the last slash, or the root
        raise ValueError(f"{target!r} is no variable, and no scope either: a scope ends with '/'")
    scope = "" if target == "/" else target
    front = "" if name == "/" else name
    below = {_whole(own): None for own in known if own.startswith(scope)}
    if not below:
        raise ValueError(f"no variable lies below {target!r}")
    return [
        (  # without the slash of a scope that is the name of a variable in parts, as in TensorFlow
            (front + whole[len(scope) :]).removesuffix("/"),
            [(whole, known[whole])] if whole in known else _parts_of(whole, known),
        )
        for whole in below
    ]


def _name_in(known: Mapping[str, object], value: object, otherwise: str) -> str:
    return next((name for name, own in known.items() if own is value), otherwise)


def _whole(name: str) -> str:
    match = _PART.fullmatch(name)
    return name if match is None else match[1]


def _parts_of(name: str, known: Mapping[str, object]) -> list[tuple[str, object]]:
    """Return the variables ``NAME/part_0``, ``NAME/part_1`` ... in order."""
    matches = [(_PART.fullmatch(own), own) for own in known if own.startswith(f"{name}/part_")]
    numbered = sorted((int(match[2]), own) for match, own in matches if match is not None and match[1] == name)
    return [(own, known[own]) for _, own in numbered]


def _assign(
    stored: CheckpointReader,
    wanted: Sequence[tuple[str, Sequence[tuple[str, object]]]],
    known: Mapping[str, object],
    *,
    cast: bool,
) -> None:
    chosen: dict[str, Any] = {own: value for _, parts in wanted for own, value in parts}
    live = live_variables(chosen, stored.prefix)
    leaves = named_leaves(live)
    for own, (_, leaf) in leaves.items():
        if not getattr(leaf, "in_place", True) and not (own in known and isinstance(known, MutableMapping)):
            message = "a value that cannot be changed in place is given by its name in a dict of variables, which takes the new one"
            raise MismatchError("training.cannot-replace", Where("", own), message)
    values = []
    for name, parts in wanted:
        spec = stored.specs[name]
        regions = _regions(stored, name, spec, [leaves[own][1] for own, _ in parts])
        for (own, _), region in zip(parts, regions, strict=True):
            node, leaf = leaves[own]
            values.append(Bound(name, node, leaf if region is None else _Part(leaf, region), 0))
    restore_bound(stored, live, values, cast=cast)
    live.release()
    if isinstance(known, MutableMapping):
        known.update({own: value for own, value in chosen.items() if own in known})


def _regions(
    stored: CheckpointReader, name: str, spec: TensorSpec, leaves: Sequence[Leaf]
) -> list[tuple[slice, ...] | None]:
    """Return which region of a stored tensor each part takes; None for the whole of it."""
    if len(leaves) == 1:
        return [None]
    shapes = [leaf_spec.shape or () for leaf in leaves if (leaf_spec := leaf.spec()) is not None]
    whole = spec.shape or ()
    for axis, size in enumerate(whole):
        rest = (*whole[:axis], *whole[axis + 1 :])
        fits = all(len(shape) == len(whole) and (*shape[:axis], *shape[axis + 1 :]) == rest for shape in shapes)
        if len(shapes) == len(leaves) and fits and sum(shape[axis] for shape in shapes) == size:
            regions, start = [], 0
            for shape in shapes:
                regions.append((*(slice(None) for _ in range(axis)), slice(start, start + shape[axis])))
                start += shape[axis]
            return list(regions)
    raise MismatchError(
        "training.mismatch",
        Where(stored.prefix, name),
        f"{len(leaves)} parts do not make up the stored tensor",
        expected=f"parts of {list(whole)} along one axis",
        found=", ".join(str(list(shape)) for shape in shapes),
    )


class _Part:
    """A variable that takes a region of a stored tensor."""

    def __init__(self, leaf: Leaf, region: tuple[slice, ...]) -> None:
        self._leaf, self._region = leaf, region
        self.attribute = leaf.attribute
        self.in_place = getattr(leaf, "in_place", True)

    @property
    def full_name(self) -> str:
        return self._leaf.full_name

    def spec(self) -> TensorSpec | None:
        return self._leaf.spec()

    def value(self) -> Any:
        return self._leaf.value()

    def refusal(self, stored: TensorSpec, *, cast: bool) -> str | None:
        own = self._leaf.spec()  # the shape of the region was compared before
        return None if own is None else refusal_of(own, stored._replace(shape=own.shape), cast=cast)

    def buffer(self) -> Array | None:
        return None

    def assign(self, value: Array) -> object:
        return self._leaf.assign(value[self._region])
