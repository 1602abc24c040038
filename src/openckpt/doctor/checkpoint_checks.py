"""One checkpoint: what its own reader says of it, and what only a look at the files around it can explain."""

from __future__ import annotations

from collections.abc import Iterator

from openckpt.doctor.report import CheckpointReport, checkpoint_report, has_error
from openckpt.doctor.scene import Scene, refusal
from openckpt.errors import CheckpointError
from openckpt.findings import Finding, finding_of, make_finding
from openckpt.formats.names import prefix_of
from openckpt.formats.spec import GRAPH_KEY, TensorReader
from openckpt.opening.grouping import group_names
from openckpt.opening.listing import Group
from openckpt.opening.opener import open_target
from openckpt.opening.reader import CheckpointReader
from openckpt.opening.sniffing import promises_checkpoint, shard_map_format
from openckpt.opening.target import How, Target
from openckpt.storage import LocalStore

_NAMED = How("prefix", "named")
_OTHER_FORMATS = {
    "hdf5": "an HDF5 file",
    "keras-v3": "a .keras archive",
    "safetensors": "a safetensors file",
    "npz": "an npz archive",
}


def target_of(scene: Scene, group: Group) -> Target:
    """Return the group as something that `open_target` opens."""
    return Target(scene.store, group.prefix, group.format, _NAMED)


def examine(scene: Scene, group: Group) -> CheckpointReport | None:
    """Check one checkpoint; None when another program has removed it since the directory was listed."""
    shown = scene.show(group)
    if group.format == "bundle-v2" and group.index is None:
        there = _looked_at_again(scene, group)
        if there is None:
            return None
        group = there
    if group.uncommitted:
        from openckpt.opening.remains import not_committed

        error = not_committed(scene.store, group.prefix)
        return checkpoint_report(shown, group.format, group.step, [finding_of(error)])
    if group.format == "bundle-v2" and group.index is None:
        from openckpt.doctor.index_checks import check_missing_index

        return checkpoint_report(shown, group.format, group.step, check_missing_index(scene, group))
    try:
        reader = open_target(target_of(scene, group), limits=scene.limits, child=scene.child)
    except FileNotFoundError as error:
        if _is_gone(scene, group):
            return None
        return checkpoint_report(
            shown, group.format, group.step, [make_finding("storage.unreadable", shown, refusal(error))]
        )
    except OSError as error:
        return checkpoint_report(
            shown, group.format, group.step, [make_finding("storage.unreadable", shown, refusal(error))]
        )
    except CheckpointError as error:
        return _unopened(scene, group, error)
    try:
        findings = list(_findings(scene, group, reader))
        step = _step(scene, group, reader)
    finally:
        reader.close()
    if has_error(findings) and _is_gone(scene, group):
        return None
    return checkpoint_report(shown, reader.format, step, findings)


def _looked_at_again(scene: Scene, group: Group) -> Group | None:
    """Return the group as it is now: a sweep takes the index first and then the data, and a save gives it last."""
    store, directory = scene.store, scene.listing.directory
    if not isinstance(store, LocalStore):
        return group
    try:
        stats = [stat for stat in store.scan(directory) if prefix_of(stat.name) == group.name]
    except OSError:
        return group
    listing = group_names(store, directory, stats, limits=scene.limits)
    return next((found for found in listing.groups if found.format == group.format), None)


def _is_gone(scene: Scene, group: Group) -> bool:
    main = group.index or (group.shards[0] if group.shards else None)
    return main is not None and scene.store.stat(main.path) is None


def _unopened(scene: Scene, group: Group, error: CheckpointError) -> CheckpointReport:
    from openckpt.doctor.index_checks import explain_unreadable

    by_name = group.format == "bundle-v2" or len(group.shards) > 1
    findings = explain_unreadable(scene, group, error)
    return checkpoint_report(scene.show(group), group.format if by_name else None, group.step, findings)


def _step(scene: Scene, group: Group, reader: TensorReader) -> int | None:
    if group.step is not None:
        return group.step
    try:
        return CheckpointReader(reader, target_of(scene, group)).step
    except (CheckpointError, OSError):
        return None  # the counter itself is damaged: a finding says so


def _findings(scene: Scene, group: Group, reader: TensorReader) -> Iterator[Finding]:
    found: list[Finding] = []
    try:
        found.extend(reader.validate(data=not scene.quick, progress=scene.progress))  # keeps what came before an error
    except CheckpointError as error:
        found.append(finding_of(error))
    except OSError as error:
        found.append(make_finding("storage.unreadable", scene.show(group), refusal(error)))
    if group.format == "bundle-v2" and any(finding.severity != "note" for finding in found):
        from openckpt.doctor.shard_checks import explain_shards  # a healthy checkpoint does without

        try:
            yield from list(explain_shards(scene, group, reader, found))
        except CheckpointError:
            pass  # the index is damaged too, which is among what was found
    yield from found
    yield from _what_tensorflow_makes_of_it(scene, group, reader, found)


def _what_tensorflow_makes_of_it(
    scene: Scene, group: Group, reader: TensorReader, found: list[Finding]
) -> Iterator[Finding]:
    """Notes about formats and kinds that behave otherwise in TensorFlow than their users expect."""
    shown = scene.show(group)
    if reader.format in _OTHER_FORMATS:
        promised = promises_checkpoint(group.name), shard_map_format(group.name)
        misnamed = "" if reader.format in promised else ", although its name does not say so"
        yield make_finding("run.other-format", shown, f"this is {_OTHER_FORMATS[reader.format]}{misnamed}")
        from openckpt.doctor.keras_checks import check_optimizer

        yield from check_optimizer(reader)
        return
    if group.extras and not scene.quick:
        from openckpt.doctor.graph_checks import check_meta_graph

        yield from check_meta_graph(scene, group, reader)
    if any(finding.severity == "error" for finding in found):
        return
    if GRAPH_KEY not in reader:
        yield make_finding("run.name-based", shown, "no object graph: a name-based checkpoint")
        # A data file that is a safetensors file is none of Saver's, which writes the graph beside it.
        is_dual = any(finding.code == "bundle.safetensors-header" for finding in found)
        if not group.extras and not scene.is_export and not is_dual:
            yield make_finding("run.no-meta-graph", shown, "no .meta file beside it")
