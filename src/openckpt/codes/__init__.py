"""Every code that an error or a finding may carry, with its cause and its fix in a user's words.

One module per area, each with a table ``CODES: dict[str, Code]``; the part of a code before the dot is the name of the
module. `CATALOGUE` joins them; ``docs/reference/codes.md`` is generated from it, and a test holds it against the sources:
every code used is listed, every code listed is used.

Fixes may contain ``{path}``, ``{prefix}``, ``{dir}`` and ``{key}``, filled shell-quoted from the place of the fault. They
name only commands that exist.
"""

from __future__ import annotations

from openckpt.codes import (
    archive,
    bundle,
    commit,
    convert,
    detect,
    dual,
    graph,
    hdf5,
    keras,
    limits,
    manifest,
    meta,
    npz,
    path,
    run,
    safetensors,
    savedmodel,
    slices,
    spec,
    storage,
    table,
    training,
    v1,
    writing,
)
from openckpt.codes.code import Code
from openckpt.errors import Where

_AREAS = (
    archive, bundle, commit, convert, detect, dual, graph, hdf5, keras, limits, manifest, meta, npz, path, run, safetensors,
    savedmodel, slices, spec, storage, table, training, v1, writing,
)  # fmt: skip

CATALOGUE: dict[str, Code] = {name: code for area in _AREAS for name, code in area.CODES.items()}


def fix_for(code: str, where: Where) -> str | None:
    """Return the catalogue's fix for ``code`` at ``where`` with its placeholders filled, or None where there is none."""
    import re

    from openckpt.codes.quoting import quoted, quoted_word

    entry = CATALOGUE.get(code)
    if entry is None or entry.fix is None:
        return None
    path_ = where.path
    values = {
        "path": quoted(path_),
        "prefix": quoted(re.sub(r"\.(index|meta|data-\d{5,}-of-\d{5,})$", "", path_)),
        "dir": quoted(_directory_around(path_)),
        "key": quoted_word(where.key or ""),
    }
    return re.sub(r"\{(path|prefix|dir|key)\}", lambda m: values[m[1]], entry.fix)


def _directory_around(path: str) -> str:
    """Return the directory in which a file or a directory lies, as near to the given path as can be."""
    import os.path

    directory, name = os.path.split(path)
    if name in ("", ".", ".."):
        return os.path.normpath(os.path.join(path, os.pardir))
    return directory or "."
