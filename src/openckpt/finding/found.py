"""`FoundCheckpoint`: one checkpoint that `openckpt.find` came across, as a value."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class FoundCheckpoint:
    """One checkpoint in a tree.

    Attributes:
        prefix: what to pass to `openckpt.open`; ``ARCHIVE!PREFIX`` for one inside an archive. Where a file has the name of a
            V2 prefix the name opens the file, and ``files[0]``, the index, opens the prefix.
        format: ``bundle-v2 table-v1 hdf5 keras-v3 safetensors npz``; of a damaged file, what its name promises.
        step: the number at the end of the name, or None.
        complete: whether every file is there, the index is one and no data file is shorter than it says (not measured
            above 8 MiB of index); whether the bytes are right is for `openckpt.diagnose` to check.
        bytes: size of all its files.
        files: its files as paths, the index first; missing ones are not listed.
        listed: whether a manifest lists it; False of a checkpoint that retention forgot, or that never had a manifest.
        forgotten: complete, but its directory has a manifest and that does not list it.
        newest: whether it is the one that its directory stands for: the newest of the manifest, else the latest complete.
        missing: names of files that it needs and that are not there (the first 100).
        damage: why its index or a file cannot be read, or None.
        damage_code: the code of that damage.
        run: the directory whose checkpoints belong to one training.
        layout: where the files look like it, who wrote them: ``saved-model model-zoo-tf1 model-zoo-tf2 bert estimator
            keras-tuner magenta tf-agents``, else None.
        links: those of ``files`` that are symbolic links.
    """

    prefix: str
    format: str
    step: int | None
    complete: bool
    bytes: int
    files: tuple[str, ...]
    listed: bool
    newest: bool = False
    missing: tuple[str, ...] = ()
    damage: str | None = None
    damage_code: str | None = None
    run: str = ""
    layout: str | None = None
    forgotten: bool = False
    links: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form (documented in docs/reference/json.md)."""
        return {
            "prefix": self.prefix,
            "format": self.format,
            "step": self.step,
            "complete": self.complete,
            "bytes": self.bytes,
            "files": list(self.files),
            "listed": self.listed,
            "forgotten": self.forgotten,
            "newest": self.newest,
            "missing": list(self.missing),
            "damage": None if self.damage is None else {"code": self.damage_code, "message": self.damage},
            "run": self.run,
            "layout": self.layout,
            "links": list(self.links),
        }
