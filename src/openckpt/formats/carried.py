"""How tensors of TensorFlow's types lie in files whose formats lack them: npz and plain HDF5 (docs/format/npz.md).

    int4 int2, uint4 uint2            as int8, uint8: one element per byte, the value itself
    qint8 quint8 qint16 ...           as the integers that they are
    bfloat16 float8_... float4_...    as opaque elements of their size
    variant, and strings that         as uint8 [size]: the bytes that a data file of a V2 checkpoint holds (formats 2.7, 2.8)
      the format cannot spell

What was lost - the key, the type, the shape - is a `Carried` beside the tensor, in the words of the file's format.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import count
from math import prod
from typing import TYPE_CHECKING, NamedTuple, cast

from openckpt.errors import CheckpointError, CorruptionError, Where
from openckpt.formats.bundle.values import SUB_BYTE
from openckpt.formats.dtypes import BY_NAME
from openckpt.limits import OBJECT_BYTES, Limits, growth_of

if TYPE_CHECKING:
    from openckpt.formats.spec import Array
    from openckpt.formats.strictjson import Json

HOSTS = {
    "qint8": "int8", "quint8": "uint8", "qint16": "int16", "quint16": "uint16", "qint32": "int32",
    "int4": "int8", "int2": "int8", "uint4": "uint8", "uint2": "uint8",
}  # fmt: skip
"""types that lie as another type, of the same values"""
OPAQUE = frozenset(name for name in BY_NAME if name.startswith(("bfloat16", "float8_", "float4_")))
"""types that lie as elements without a type"""
BLOBS = frozenset(("string", "variant"))
"""types that may lie as the bytes of a V2 data file"""


class Carried(NamedTuple):
    """What a tensor is, where the file alone does not say it.

    Attributes:
        key: the key; bytes that are not UTF-8 as surrogates.
        dtype: TensorFlow's name.
        shape: sizes in elements.
    """

    key: str
    dtype: str
    shape: tuple[int, ...]


def parse_carried(said: Json, where: Where, code: str) -> Carried:
    """Return what one entry of JSON says of a tensor; raises CorruptionError ``code``."""
    if not isinstance(said, dict) or said.keys() != {"key", "dtype", "shape"}:
        raise CorruptionError(code, where, "an entry is an object with exactly key, dtype and shape")
    key, dtype, shape = said["key"], said["dtype"], said["shape"]
    if not isinstance(key, str) or not _stands_for_bytes(key):
        raise CorruptionError(code, where, "the key is no text")
    if not isinstance(dtype, str) or dtype not in BY_NAME:
        raise CorruptionError(code, where, "the dtype is not known", found=repr(dtype)[:40])
    sizes = tuple(size for size in shape if type(size) is int and 0 <= size < 1 << 63) if type(shape) is list else None
    if sizes is None or len(sizes) != len(shape):  # type: ignore[arg-type]
        raise CorruptionError(code, where, "the shape is not a list of sizes")
    return Carried(key, dtype, sizes)


def _stands_for_bytes(key: str) -> bool:
    try:
        return key.encode("utf-8", "surrogateescape").decode("utf-8", "surrogateescape") == key
    except UnicodeEncodeError:
        return False


def is_same_bytes(dtype: str) -> bool:
    """Return whether elements lie in the file as numpy has them in memory, so that they can be read in place."""
    return dtype not in SUB_BYTE and dtype not in BLOBS


def check_carried(
    carried: Carried, dtype: str | None, itemsize: int, shape: tuple[int, ...], where: Where, code: str, limits: Limits
) -> None:
    """Hold what is said of a tensor against how it lies in the file.

    Args:
        carried: what is said.
        dtype: how the elements lie; None for elements without a type.
        itemsize: bytes per element in the file.
        shape: sizes in the file.
        where: the place, for errors.
        code: code of the complaint.
        limits: caps against hostile files.

    Raises:
        CorruptionError: they contradict each other.
        LimitError: a shape of too many dimensions, or of many more strings than there are bytes.
    """
    limits.check("tensor_rank", len(carried.shape), where, "the rank")
    stated = BY_NAME.get(carried.dtype)
    if carried.dtype in BLOBS and dtype == "uint8" and len(shape) == 1:
        elements = prod(carried.shape)
        if elements > shape[0]:
            message = f"{elements} elements do not fit into {shape[0]} bytes"
            raise CorruptionError(code, where, message)
        growth = growth_of(elements * OBJECT_BYTES, shape[0])
        limits.check("archive_ratio", growth, where, "the memory for these strings, in multiples of their bytes,")
        return
    plain = stated is not None and carried.dtype == dtype
    hosted = HOSTS.get(carried.dtype, "") == dtype
    opaque = stated is not None and dtype is None and carried.dtype in OPAQUE and stated.itemsize == itemsize
    flat = len(shape) == 1 and prod(carried.shape) == shape[0]  # HDF5 has no more than 32 dimensions
    if not (plain or hosted or opaque) or not (flat or carried.shape == shape):
        raise CorruptionError(
            code,
            where,
            "what is said of this tensor is not how it lies in the file",
            expected=f"{carried.dtype} {list(carried.shape)}",
            found=f"{dtype or f'elements of {itemsize} bytes'} {list(shape)}",
        )


def elements_of(array: Array, dtype: str) -> Array:
    """Return a numeric tensor as it lies in the file: C-contiguous and little-endian; opaque types as ``V`` elements.

    The array itself where it can be: only the narrow types are converted.
    """
    import numpy as np

    shape = array.shape
    if dtype in HOSTS and dtype in SUB_BYTE:
        array = array.astype(HOSTS[dtype])
    elif dtype in SUB_BYTE:
        array = array.view(np.uint8) & np.uint8(0x0F)
    array = np.ascontiguousarray(array, array.dtype.newbyteorder("<")).reshape(shape)
    return array.view(f"V{array.dtype.itemsize}") if dtype in OPAQUE else array


def blob_of(array: Array, dtype: str) -> bytes:
    """Return the bytes that a data file of a V2 checkpoint would hold for a string or variant tensor."""
    from openckpt.formats.bundle.payload import encode_strings, encode_variants

    elements = cast("list[bytes]", array.reshape(-1).tolist())
    return (encode_variants if dtype == "variant" else encode_strings)(elements)[0]


def value_of(raw: Array, carried: Carried, where: Where, code: str) -> Array:
    """Return the value of a tensor that does not lie in the file as it is in memory.

    Args:
        raw: the elements in the file, as an array of their dtype there; opaque ones of any dtype of their size.
        carried: what the tensor is; already checked with `check_carried`.
        where: the place, for errors.
        code: code of the complaint about a blob.

    Raises:
        CorruptionError: the bytes of a string or variant tensor are not in order.
    """
    import numpy as np

    from openckpt.formats.bundle.payload import parse_strings, parse_variants
    from openckpt.formats.bundle.values import finish, stored_dtype

    if carried.dtype in BLOBS:
        parse = parse_variants if carried.dtype == "variant" else parse_strings
        try:
            # Checksums of the parts are inside, one over all is not; where it is wanted the file around it has it.
            elements = parse(raw.tobytes(), prod(carried.shape), 0, where, verify=False)
        except CheckpointError as error:
            raise CorruptionError(code, where, error.message, found=error.found, expected=error.expected) from None
        flat: Array = np.empty(len(elements), object)
        flat[:] = elements
        return flat.reshape(carried.shape)
    dtype = BY_NAME[carried.dtype]
    if carried.dtype in SUB_BYTE:
        raw = finish(raw.view(stored_dtype(dtype)), dtype, big_endian=False)
    return raw.view(dtype.numpy()).reshape(carried.shape)


def assign_names(keys: Iterable[str], is_plain: Callable[[str], bool]) -> dict[str, str]:
    """Return ``{key: name}``: a key that can be a name is one, any other becomes ``key-<n>``, numbered in their order.

    As in the dual format, so that one rule holds for every file that openckpt writes.
    """
    names = {key: key if is_plain(key) else "" for key in keys}
    taken = set(names.values())
    numbers = count()
    for key, name in names.items():
        if not name:
            names[key] = next(n for n in (f"key-{number}" for number in numbers) if n not in taken)
    return names
