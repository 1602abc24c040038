"""Known layouts of folders with checkpoints, recognised by the names around them.

saved_model.pb  variables/variables.*                          saved-model    TensorFlow's export
pipeline.config  model.ckpt.*                                  model-zoo-tf1  detection model zoo, TF 1
pipeline.config  checkpoint/ckpt-0.*                           model-zoo-tf2  detection model zoo, TF 2
bert_config.json  vocab.txt  bert_model.ckpt.*                 bert
graph.pbtxt or events.out.tfevents.*  model.ckpt-N.*           estimator
trial_ID/checkpoints/epoch_0/checkpoint.*  trial_ID/trial.json keras-tuner
NAME.mag                                                       magenta        bundle of Magenta
checkpoint  ckpt-N.*, keys agent/...                           tf-agents      its Checkpointer
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from openckpt.formats.names import EXPORT_NAMES
from openckpt.opening.listing import Group
from openckpt.storage import FileStat

_MARKS = EXPORT_NAMES | frozenset("pipeline.config graph.pbtxt trial.json bert_config.json albert_config.json".split())
_TRIAL = re.compile(r"trial_[0-9a-f]+", re.ASCII)


@dataclass(frozen=True, slots=True)
class Place:
    """A directory on the way down: its name, the telling files in it, and the directory above."""

    name: str
    marks: frozenset[str]
    above: Place | None

    def up(self, levels: int) -> Place | None:
        """Return the place ``levels`` above, or None."""
        place: Place | None = self
        for _ in range(levels):
            place = None if place is None else place.above
        return place


def make_place(name: str, stats: Iterable[FileStat], above: Place | None) -> Place:
    """Return the place of a directory with these entries."""
    names = [stat.name for stat in stats]
    marks = _MARKS.intersection(names)
    if any(entry.startswith("events.out.tfevents.") for entry in names):
        marks |= {"events"}
    return Place(name, marks, above)


def recognise(group: Group, place: Place, *, in_mag: bool) -> str | None:
    """Return the layout that a checkpoint in ``place`` belongs to, or None."""
    above = place.above
    if in_mag:
        return "magenta"
    if group.name == "variables" and place.name == "variables" and above is not None and _is_saved_model(above):
        return "saved-model"
    if group.format not in ("bundle-v2", "table-v1"):
        return "keras-tuner" if _is_trial(place) else None
    if "pipeline.config" in place.marks:
        return "model-zoo-tf1"
    if place.name == "checkpoint" and above is not None and "pipeline.config" in above.marks:
        return "model-zoo-tf2"
    if group.name.startswith("bert_model.ckpt") or place.marks & {"bert_config.json", "albert_config.json"}:
        return "bert"
    if _is_trial(place):
        return "keras-tuner"
    if group.name.startswith("model.ckpt-") and place.marks & {"graph.pbtxt", "events"}:
        return "estimator"
    return group.maker


def _is_saved_model(place: Place) -> bool:
    return not place.marks.isdisjoint(EXPORT_NAMES)


def _is_trial(place: Place) -> bool:
    # trial_ID/checkpoints/epoch_0/checkpoint (2019), trial_ID/checkpoint (now)
    for levels in range(3):
        at = place.up(levels)
        if at is not None and (_TRIAL.fullmatch(at.name) or "trial.json" in at.marks):
            return levels == 0 or place.name.startswith(("epoch_", "checkpoint"))
    return False
