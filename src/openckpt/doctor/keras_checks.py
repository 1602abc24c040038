"""Keras files that open without an error and lack weights.

A layer that Keras did not track when the model was saved (kept in a list or dict of a custom class) leaves no weight in the
file, and loading leaves it random without a word. What remains is the state of the optimizer, which had seen the weight:

    optimizer/vars/0, /1     iteration, learning rate
    optimizer/vars/2, /3     both moments of the first trainable weight, of its shape; and so on in pairs
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from math import prod

from openckpt.errors import CheckpointError
from openckpt.findings import Finding, Lost, make_finding
from openckpt.formats.spec import TensorReader

_SLOT = re.compile(r"(?:.*/)?optimizer/vars/(\d+)")

Shape = tuple[int, ...]


def check_optimizer(reader: TensorReader) -> Iterator[Finding]:
    """Yield ``run.optimizer-without-weights`` when an Adam-like optimizer has moments of weights that are not in the file."""
    slots: dict[int, Shape] = {}
    held: Counter[Shape] = Counter()
    parameters = 0
    try:
        for key, spec in reader.items():
            shape = spec.shape or ()
            match = _SLOT.fullmatch(key)
            if match is None:
                held[shape] += 1
                parameters += spec.size
            else:
                slots[int(match[1])] = shape
    except CheckpointError:
        return  # what cannot be listed has a finding of its own
    lost = _pairs(slots) - held
    if lost:
        shapes = ", ".join(str(list(shape)) for shape in list(lost.elements())[:6])
        count = sum(map(prod, lost.elements()))
        number = sum(lost.values())
        message = f"the optimizer has state for {number} weights that are not in the file, of shapes {shapes}"
        yield make_finding(
            "run.optimizer-without-weights", reader.path, message, lost=Lost((), count, parameters + count)
        )


def _pairs(slots: dict[int, Shape]) -> Counter[Shape]:
    """Return the shapes of the weights that the moments belong to; empty where the slots are not pairs of moments."""
    shapes = [slots[number] for number in sorted(slots) if number >= 2]
    if len(shapes) % 2 or shapes[::2] != shapes[1::2]:
        return Counter()
    return Counter(shape for shape in shapes[::2] if shape)
