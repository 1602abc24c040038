"""Plain HDF5 as openckpt writes it: one dataset per key, and attributes for what HDF5 cannot say (docs/format/hdf5-and-keras.md).

/                     openckpt = {"version": 1}
/dense/kernel         openckpt_key = "dense/kernel"
/a/__value__          openckpt_key = "a"              because a/b is a key as well, and so /a a group
/key-0                openckpt_key = "../x"           no path; openckpt_key_hex in its place for a key with a zero byte
                      openckpt_dtype = "int4"         where the type of the dataset is another
                      openckpt_shape = "[2, 3]"       for what lies flat: blobs of strings, more than 32 dimensions
                      dtype = "bfloat16"              what opaque elements are, as Keras says it
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import count
from typing import TYPE_CHECKING

from openckpt.errors import CorruptionError, UnsupportedError, Where
from openckpt.formats.carried import Carried, assign_names, check_carried, parse_carried
from openckpt.formats.hdf5.report import Dataset
from openckpt.formats.strictjson import Json, parse_json
from openckpt.limits import Limits

if TYPE_CHECKING:
    from h5py import h5d, h5g

    from openckpt.formats.hdf5.attributes import Attributes

FILE, KEY, KEY_HEX, DTYPE, SHAPE, OPAQUE_TYPE = (
    "openckpt",
    "openckpt_key",
    "openckpt_key_hex",
    "openckpt_dtype",
    "openckpt_shape",
    "dtype",
)
"""names of the attributes"""
VALUE = "__value__"
"""the dataset of a key that is the path of a group"""
VERSION = 1
MOST_DIMENSIONS = 32

_CODE = "hdf5.carried"
_DEPTH = 48  # below the default of `Limits.hdf5_depth`
_NAME_BYTES = 60_000


def is_path(key: str) -> bool:
    """Return whether a key can be the path of a dataset as it is."""
    parts = key.split("/")
    try:
        raw = key.encode("utf-8")
    except UnicodeEncodeError:
        return False
    plain = all(part not in ("", ".") for part in parts) and "\0" not in key
    return plain and len(parts) <= _DEPTH and len(raw) <= _NAME_BYTES


def plan_paths(keys: Iterable[str]) -> dict[str, str]:
    """Return ``{key: path of its dataset}``: no two equal, and none the group of another."""
    paths = assign_names(keys, is_path)
    taken = set(paths.values())
    groups = {path[:at] for path in taken for at in range(len(path)) if path[at] == "/"}
    for key, path in paths.items():
        if path not in groups:
            continue
        # numbered only where a key is called so itself
        names = (f"{path}/{VALUE}{number or ''}" for number in count())
        home = next(name for name in names if name not in taken and name not in groups)
        taken.add(home)
        paths[key] = home
    return paths


def is_plain_openckpt(attributes: Attributes, root: h5g.GroupID, where: Where) -> bool:
    """Return whether openckpt wrote the file.

    Raises:
        UnsupportedError: in a version that is not known (``hdf5.carried-version``).
    """
    text = attributes.text(root, FILE)
    if text is None:
        return False
    said = _parse(text, where)
    version = said.get("version") if isinstance(said, dict) else None
    if version != VERSION:
        message = "openckpt wrote this file in a version that is not known"
        raise UnsupportedError("hdf5.carried-version", where, message, expected=VERSION, found=repr(version)[:40])
    return True


def read_carried(attributes: Attributes, did: h5d.DatasetID, found: Dataset, path: str, limits: Limits) -> Carried:
    """Return what the attributes of a dataset say of its tensor, held against how it lies.

    Raises:
        CorruptionError: they contradict it (``hdf5.carried``).
        LimitError: a shape beyond the limits.
    """
    where = Where(path, found.path)
    key = attributes.text(did, KEY)
    more = key is None or attributes.count(did) > 1  # else the key is all that is said
    if key is None:
        spelled = attributes.text(did, KEY_HEX)
        try:
            key = found.path if spelled is None else bytes.fromhex(spelled).decode("utf-8", "surrogateescape")
        except ValueError:
            raise CorruptionError(_CODE, where, f"{KEY_HEX} is not spelled in hex") from None
    shape = attributes.text(did, SHAPE) if more else None
    dimensions: Json = list(found.shape or ())
    if shape is not None:
        dimensions = _parse(shape, where)
    dtype = (attributes.text(did, DTYPE) if more else None) or found.dtype
    carried = parse_carried({"key": key, "dtype": dtype, "shape": dimensions}, where, _CODE)
    check_carried(carried, found.dtype, found.itemsize, found.shape or (), where, _CODE, limits)
    return carried


def _parse(text: str, where: Where) -> Json:
    return parse_json(text.encode("utf-8", "surrogateescape"), where, code=_CODE)


def encode_shape(shape: Sequence[int]) -> str:
    """Return the text of the attribute that holds a shape."""
    return f"[{', '.join(map(str, shape))}]"
