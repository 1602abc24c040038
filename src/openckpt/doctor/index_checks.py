"""Why the index of a checkpoint, or a checkpoint of one file, is missing or does not open, and how to have it back."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing

from openckpt.codes.quoting import quoted
from openckpt.doctor.content import compressed, find_replacement
from openckpt.doctor.leftovers import part_names, renamed_copy
from openckpt.doctor.scene import Scene, read_small
from openckpt.errors import CheckpointError, Where, shown
from openckpt.findings import Finding, finding_of, make_finding
from openckpt.formats.detect import detect, refusal_of
from openckpt.formats.names import INDEX_SUFFIX, TEMP_SUFFIX, is_part_file
from openckpt.formats.sstable import MAGIC_BYTES, Table
from openckpt.opening.listing import Group
from openckpt.storage import FileStat
from openckpt.storage.memory import MemorySource

_INDEX_BYTES = 64 << 20
_HEADER_BYTES = 16 << 20  # of a data file that is a safetensors file too: of a hundred thousand tensors
_LOOKED_AT = 16  # data files without an index


def check_missing_index(scene: Scene, group: Group) -> list[Finding]:
    """Return why there are data files but no index (formats 9, rows 8, 26 and 41), and how to get one."""
    name = group.name + INDEX_SUFFIX
    place = scene.path(name)
    here = shown([stat.name for stat in group.shards])
    for stat in scene.listing.directories:
        if stat.name == name:
            return [make_finding("run.index-unreadable", place, "a directory lies under the name of the index")]
    for stat in scene.listing.others:
        if stat.name == name:
            what = "a link to nothing" if stat.link else "not a regular file"
            return [make_finding("run.index-unreadable", place, f"{what} lies under the name of the index")]
    copy = renamed_copy(scene.listing, name)
    if copy is not None:
        fix = f"mv {quoted(scene.store.display(copy.path))} {quoted(place)}"
        return [make_finding("run.index-missing", place, f"the index is missing; {copy.name!r} may be it", fix=fix)]
    recoverable = _recoverable(scene, group, place)
    if recoverable is not None:
        return [recoverable]
    message = f"the index is missing; its data is here: {here}"
    again = _from_header(scene, group)
    if again is not None:
        message += ", and the header of the file says all that the index did"
    missing = make_finding("run.index-missing", place, message, fix=again)
    return [missing, *_what_the_data_is(scene, group)]


def _from_header(scene: Scene, group: Group) -> str | None:
    """Return the command that makes the checkpoint again from its one data file, where that is a safetensors file of ours."""
    if len(group.shards) != 1 or group.num_shards != 1 or scene.nesting:
        return None
    from openckpt.formats.safetensors_header import read_header

    try:
        with closing(scene.store.open(group.shards[0].path)) as source:
            first = source.read_at(0, min(8, source.size))
            if len(first) < 8 or int.from_bytes(first, "little") > _HEADER_BYTES:
                return None
            header = read_header(source, scene.limits)
    except (CheckpointError, OSError):
        return None
    if header.dual is None:
        return None
    data, link = scene.store.display(group.shards[0].path), f"{scene.show(group)}.safetensors"
    return f"ln {quoted(data)} {quoted(link)} && openckpt convert {quoted(link)} {quoted(scene.path(f'recovered/{group.name}'))}"


def _what_the_data_is(scene: Scene, group: Group) -> list[Finding]:
    """Return what lies in place of data: of a download that failed altogether, the index is not all that is missing."""
    found = []
    for stat in group.shards[:_LOOKED_AT]:
        try:
            with closing(scene.store.open(stat.path)) as source:
                instead = find_replacement(source)
        except (CheckpointError, OSError):
            continue
        if instead is not None:
            found.append(instead)
    return found


def _recoverable(scene: Scene, group: Group, place: str) -> Finding | None:
    """Return the finding for a save that broke off before its index was in place, where the pieces still are."""
    for stat in scene.listing.leftovers:
        if stat.kind == "file" and stat.name.startswith(f"{group.name}{INDEX_SUFFIX}.tempstate"):
            path = scene.store.display(stat.path)
            fix = f"cp {quoted(path)} {quoted(place)} && openckpt doctor {quoted(scene.show(group))}"
            return make_finding(
                "run.index-recoverable", place, f"the index is missing; {stat.name!r} was to become it", fix=fix
            )
        if stat.kind == "dir" and stat.name == group.name + TEMP_SUFFIX:
            parts = [
                name for name in part_names(scene.store, stat) if is_part_file(name) and name.endswith(INDEX_SUFFIX)
            ]
            if parts:
                message = f"the index is missing; the working directory {stat.name!r} still holds {shown(parts)}"
                return make_finding(
                    "run.index-recoverable", place, message, fix=_from_parts(scene, group, stat, parts, place)
                )
    return None


def _from_parts(scene: Scene, group: Group, stat: FileStat, parts: Sequence[str], place: str) -> str | None:
    # The merge of a single part changes nothing in its index: one writer, one shard, the same entries (formats 2.11).
    if len(parts) != 1 or len(group.shards) != 1 or group.num_shards != 1:
        return None
    part = scene.store.display(scene.store.join(stat.path, parts[0]))
    return f"cp {quoted(part)} {quoted(place)} && openckpt doctor {quoted(scene.show(group))}"


def explain_unreadable(scene: Scene, group: Group, error: CheckpointError) -> list[Finding]:
    """Return what is wrong with an index, or a checkpoint of one file, that does not open (formats 9, rows 13 to 15, 25).

    That is the error itself where nothing better is known: one fault, one finding.
    """
    known = finding_of(error)
    main = group.index or (group.shards[0] if len(group.shards) == 1 else None)
    settled = error.code.startswith("detect.") and error.code != "detect.trailing-junk"
    better = None if main is None or settled else _explain_file(scene, group, main)
    return [known if better is None else better]


def _explain_file(scene: Scene, group: Group, main: FileStat) -> Finding | None:
    place = scene.store.display(main.path)
    if group.format in ("bundle-v2", "table-v1"):
        data = read_small(scene.store, main.path, _INDEX_BYTES)
        finding = _explain_table(data, place) if data else None
        if finding is not None:
            return finding
    try:
        with closing(scene.store.open(main.path)) as source:
            found = detect(source)
    except (CheckpointError, OSError):
        return None
    if found.kind in ("gz", "bz2", "xz"):
        return compressed(found, place)
    refusal = refusal_of(found, place)
    return None if refusal is None or found.kind == "unknown" else finding_of(refusal)


def _explain_table(data: bytes, place: str) -> Finding | None:
    end = data.rfind(MAGIC_BYTES) + len(MAGIC_BYTES)
    if len(MAGIC_BYTES) <= end < len(data) and _is_table(data[:end], place):
        kept = quoted(f"{place}.damaged")
        fix = f"mv {quoted(place)} {kept} && head -c {end} {kept} > {quoted(place)}"
        message = f"{len(data) - end} bytes follow the end of the table, which is whole without them"
        return make_finding("detect.trailing-junk", Where(place, offset=end), message, fix=fix)
    pairs = data.count(b"\r\n")
    if pairs and _is_table(data.replace(b"\r\n", b"\n"), place):
        return make_finding("detect.text-damaged", place, f"{pairs} line feeds have got a carriage return before them")
    return None


def _is_table(data: bytes, place: str) -> bool:
    try:
        return all(True for _ in Table(MemorySource(place, data)).items())
    except CheckpointError:
        return False
