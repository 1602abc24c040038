"""The directory of a SavedModel around its variables (formats 5.2)."""

from __future__ import annotations

from openckpt.doctor.scene import Scene
from openckpt.findings import Finding, make_finding


def check_saved_model(scene: Scene) -> list[Finding]:
    """Return what is wrong with a SavedModel apart from the checkpoint inside it."""
    if not scene.listing.saved_model:
        named = scene.path("saved_model.pb")
        return [make_finding("run.no-saved-model", named, "the graph of this SavedModel is missing")]
    return []
