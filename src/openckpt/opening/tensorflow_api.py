"""TensorFlow's own functions for finding and reading checkpoints, with TensorFlow's results and without TensorFlow.

`latest_checkpoint`, `get_checkpoint_state`, `checkpoint_exists`, `load_checkpoint`, `list_variables`, `load_variable` and
`NewCheckpointReader` answer as those of TensorFlow 2.21 do (formats 4.3 to 4.5): None on a stale manifest, ValueError on an
empty one. Names mirror TensorFlow's because behaviour does; where that would be wrong it differs, and only here:

* paths are literal: ``[``, ``]``, ``*`` and ``\\`` in them do not hide a checkpoint, and do not match another (the pattern
  ``NAME-?????-of-00003`` of a sharded V1 checkpoint keeps its meaning);
* ``get_variable_to_dtype_map`` gives numpy dtypes;
* `load_checkpoint` of a directory does not follow a manifest out of that directory: that is an UnsafeError;
* what TensorFlow logs is a `CheckpointWarning`.

`openckpt.open` is the better way in: it also finds what a manifest does not name, and says what is wrong.
"""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING

from openckpt.errors import CorruptionError, PathNotFoundError, UnsafeError, warn
from openckpt.formats.dtypes import BY_NAME
from openckpt.formats.manifest import Manifest, parse_manifest
from openckpt.formats.names import INDEX_SUFFIX, MANIFEST_NAME, is_same_v1_set, parse_v1_shard_name
from openckpt.limits import DEFAULT_LIMITS
from openckpt.opening.opener import open as open_checkpoint
from openckpt.opening.reader import CheckpointReader
from openckpt.storage import LOCAL, read_whole

if TYPE_CHECKING:
    import numpy as np

    from openckpt.formats.spec import Array

Path = str | os.PathLike[str]

_NO_MODEL_PATH = ("manifest.empty", "manifest.no-model-path")
# What openckpt reads past and TensorFlow does not.
_STRICT = ("manifest.unknown-field", "manifest.byte-order-mark", "manifest.path-not-utf8")
_DT_NAMES = {"float32": "DT_FLOAT", "float64": "DT_DOUBLE", "float16": "DT_HALF"}


def get_checkpoint_state(checkpoint_dir: Path, latest_filename: str | None = None) -> Manifest | None:
    """Return what the manifest of a directory says, relative paths joined to the directory; None where there is none.

    Raises:
        ValueError: the manifest is empty or names no newest checkpoint.
        UnicodeDecodeError: it is not UTF-8.
    """
    directory = os.fspath(checkpoint_dir)
    path = os.path.join(directory, latest_filename or MANIFEST_NAME)
    try:
        data = read_whole(LOCAL, path, limits=DEFAULT_LIMITS, cap="manifest_bytes", what="the manifest's size")
    except FileNotFoundError:
        return None
    except OSError as error:
        warn(f"{path}: {error.strerror}; the manifest is ignored")
        return None
    data.decode()
    try:
        manifest = parse_manifest(data, path)
    except CorruptionError as error:
        if error.code in _NO_MODEL_PATH:
            raise ValueError(f"Invalid checkpoint state loaded from {directory}") from error
        warn(f"{error}; the manifest is ignored")
        return None
    if any(problem.code in _STRICT for problem in manifest.problems):
        warn(f"{path}: {manifest.problems[0].message}; TensorFlow ignores such a manifest, and so does this function")
        return None
    return replace(
        manifest,
        model_checkpoint_path=os.path.join(directory, manifest.model_checkpoint_path),
        all_model_checkpoint_paths=tuple(os.path.join(directory, p) for p in manifest.all_model_checkpoint_paths),
    )


def checkpoint_exists(checkpoint_prefix: Path) -> bool:
    """Return whether a V2 or V1 checkpoint of this prefix is there (its index, or a file of its very name)."""
    prefix = os.fspath(checkpoint_prefix)
    if LOCAL.stat(prefix + INDEX_SUFFIX) is not None or LOCAL.stat(prefix) is not None:
        return True
    directory, name = os.path.split(prefix)
    pattern = parse_v1_shard_name(name)
    if pattern is None or pattern[1] is not None:
        return False
    try:
        stats = LOCAL.scan(directory)
    except OSError:
        return False
    return any(is_same_v1_set(name, stat.name) for stat in stats)


_SWEPT_AT_MOST = 20  # saves of a trainer between two system calls of ours; one is rare


def latest_checkpoint(checkpoint_dir: Path, latest_filename: str | None = None) -> str | None:
    """Return the prefix of the newest checkpoint that the manifest names, or None where it is not there.

    Neither older entries nor the directory are looked at: ``openckpt.open(directory).prefix`` does that. A manifest that a
    trainer replaces meanwhile is read again.

    Raises:
        ValueError, UnicodeDecodeError: as `get_checkpoint_state`.
    """
    named: str | None = None
    for _ in range(_SWEPT_AT_MOST):
        state = get_checkpoint_state(checkpoint_dir, latest_filename)
        if state is None:
            return None
        if checkpoint_exists(state.model_checkpoint_path):
            return state.model_checkpoint_path
        if state.model_checkpoint_path == named:
            break  # named twice and still not there: not a sweep between our two looks
        named = state.model_checkpoint_path
    warn(f"the manifest names {named!r}, which is not there; openckpt.open(directory) finds what is")
    return None


def load_checkpoint(ckpt_dir_or_file: Path) -> TensorFlowReader:
    """Return a reader of a prefix, or of the newest checkpoint of a directory.

    Raises:
        ValueError: a directory without a manifest, or with one that names what is not there.
        UnsafeError: ``path.outside``, the manifest names a checkpoint in another directory.
        PathNotFoundError, FormatError, OSError: as `openckpt.open`.
    """
    path = os.fspath(ckpt_dir_or_file)
    stat = LOCAL.stat(path)
    if stat is None or stat.kind != "dir":
        return NewCheckpointReader(path)
    swept: str | None = None
    while True:
        prefix = latest_checkpoint(path)
        if prefix is None:
            raise ValueError(f"Couldn't find 'checkpoint' file or checkpoints in given directory {path}")
        _check_inside(path, prefix)
        try:
            return NewCheckpointReader(prefix)
        except PathNotFoundError:
            if prefix == swept:
                raise
            swept = prefix  # a trainer deleted it since the manifest was read, which names a newer one by now


def _check_inside(path: str, prefix: str) -> None:
    home = os.path.abspath(path)
    if os.path.commonpath([home, os.path.abspath(prefix)]) != home:
        raise UnsafeError(
            "path.outside",
            os.path.join(path, MANIFEST_NAME),
            f"the manifest names {prefix!r}, which lies in another directory",
        )


def list_variables(ckpt_dir_or_file: Path) -> list[tuple[str, list[int]]]:
    """Return ``(key, shape)`` of every tensor, sorted by key; raises as `load_checkpoint`."""
    with load_checkpoint(ckpt_dir_or_file) as reader:
        return sorted(reader.get_variable_to_shape_map().items())


def load_variable(ckpt_dir_or_file: Path, name: str) -> Array | np.generic | bytes:
    """Return the value of one tensor, a trailing ``:0`` of its name removed; raises as `load_checkpoint`, `NotFoundError`."""
    with load_checkpoint(ckpt_dir_or_file) as reader:
        return reader.get_tensor(name.removesuffix(":0"))


def NewCheckpointReader(filepattern: Path) -> TensorFlowReader:
    """Return a reader of a prefix: V2 where ``PREFIX.index`` exists, else V1; anything else as `openckpt.open`."""
    prefix = os.fspath(filepattern)
    index = LOCAL.stat(prefix + INDEX_SUFFIX)
    # TensorFlow looks for the index first, openckpt.open for the literal file.
    return TensorFlowReader(open_checkpoint(prefix if index is None else prefix + INDEX_SUFFIX))


class TensorFlowReader:
    """A checkpoint with the methods of TensorFlow's ``CheckpointReader``; also a context manager.

    Attributes:
        checkpoint: the same checkpoint as openckpt's own `CheckpointReader`.
    """

    def __init__(self, checkpoint: CheckpointReader) -> None:
        self.checkpoint = checkpoint

    def __enter__(self) -> TensorFlowReader:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.checkpoint.close()

    def __repr__(self) -> str:
        return f"<TensorFlowReader of {self.checkpoint.prefix!r}>"

    def get_variable_to_shape_map(self) -> dict[str, list[int]]:
        """Return ``{key: shape}``; a shape of unknown rank is []."""
        return {key: list(spec.shape or ()) for key, spec in self.checkpoint.specs.items()}

    def get_variable_to_dtype_map(self) -> dict[str, np.dtype[np.generic]]:
        """Return ``{key: numpy dtype}``, object for strings; raises UnsupportedError for a type that is not known."""
        return {key: spec.numpy_dtype for key, spec in self.checkpoint.specs.items()}

    def has_tensor(self, tensor_str: str | bytes) -> bool:
        """Return whether there is a tensor of this name."""
        return _as_text(tensor_str) in self.checkpoint

    def get_tensor(self, tensor_str: str | bytes) -> Array | np.generic | bytes:
        """Return the value: an array, or for a scalar a numpy scalar (of a string: bytes), as TensorFlow does.

        Raises:
            NotFoundError: no such tensor.
        """
        array = self.checkpoint[_as_text(tensor_str)]
        return array if array.shape else array[()]

    def debug_string(self) -> bytes:
        """Return one line ``name (DT_TYPE) [shape]`` for each tensor, in table order; partitioned tensors as a whole."""
        lines = [
            f"{key} ({_dt_name(spec.dtype)}) [{','.join(map(str, spec.shape or ()))}]\n"
            for key, spec in self.checkpoint.specs.items()
        ]
        return "".join(lines).encode("utf-8", "surrogateescape")


def _as_text(name: str | bytes) -> str:
    return name.decode("utf-8", "surrogateescape") if isinstance(name, bytes) else name


def _dt_name(dtype: str) -> str:
    return _DT_NAMES.get(dtype) or (f"DT_{dtype.upper()}" if dtype in BY_NAME else dtype)
