"""Archives in a directory, and what an archive says of itself."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from openckpt.doctor.content import not_an_archive
from openckpt.doctor.report import CheckpointReport, checkpoint_report
from openckpt.doctor.scene import Scene, refusal
from openckpt.errors import CheckpointError
from openckpt.findings import Finding, finding_of, make_finding
from openckpt.storage import FileStat, Store


def sort_archives(scene: Scene) -> tuple[list[FileStat], list[CheckpointReport]]:
    """Tell archives from the error pages and stubs under such names, which count as broken checkpoints."""
    good: list[FileStat] = []
    stubs = []
    for stat in sorted(scene.listing.archives, key=lambda stat: stat.name):
        error = _why_no_archive(scene, stat)
        if error is None:
            good.append(stat)
        else:
            stubs.append(checkpoint_report(scene.store.display(stat.path), None, None, [error]))
    return good, stubs


def _why_no_archive(scene: Scene, stat: FileStat) -> Finding | None:
    """Return why a file with the name of an archive is none, or None."""
    from openckpt.storage.archive import archive_kind

    place = scene.store.display(stat.path)
    try:
        source = scene.store.open(stat.path)
    except OSError as error:
        return make_finding("storage.unreadable", place, refusal(error))
    except CheckpointError as error:
        return finding_of(error)
    try:
        if archive_kind(source) is not None:
            return None
        return finding_of(not_an_archive(source))
    except CheckpointError as error:
        return finding_of(error)
    except OSError as error:
        return make_finding("storage.unreadable", place, refusal(error))
    finally:
        source.close()


def about_archive(store: Store, *, of_one: bool = False) -> Iterator[Finding]:
    """Yield what is wrong with or odd about the archive around; to one checkpoint that is whole it is a warning only."""
    from openckpt.storage.archive import ArchiveStore

    if isinstance(store, ArchiveStore):
        for finding in store.validate():
            yield replace(finding, severity="warning") if of_one and finding.severity == "error" else finding
