"""What every format shares: `TensorSpec`, and the protocol `TensorReader` that each format's reader implements."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from math import prod
from typing import TYPE_CHECKING, NamedTuple, Protocol

from openckpt.errors import NotFoundError, UnsupportedError, Where

if TYPE_CHECKING:
    import numpy as np

    from openckpt.findings import Finding, Progress
    from openckpt.formats.objectgraph import ObjectGraph

    Array = np.ndarray[tuple[int, ...], np.dtype[np.generic]]

GRAPH_KEY = "_CHECKPOINTABLE_OBJECT_GRAPH"
VALUE_SUFFIX = "/.ATTRIBUTES/VARIABLE_VALUE"
"""what TensorFlow hangs on the path of a variable to make its key (formats 6.2)"""


class TensorSpec(NamedTuple):
    """What is known of a tensor without reading it.

    A tuple, because a checkpoint may have a million of them.

    Attributes:
        dtype: TensorFlow's name: "float32", "bfloat16", "string", "int4" ...; "unknown-N" for a number that is not known.
        shape: sizes in elements; None where the rank is unknown.
        nbytes: bytes that are stored for it; None where the format does not say.
    """

    dtype: str
    shape: tuple[int, ...] | None
    nbytes: int | None = None

    @property
    def numpy_dtype(self) -> np.dtype[np.generic]:
        """The numpy dtype of the array that reading gives (imports numpy).

        Raises:
            UnsupportedError: the type is unknown (code ``spec.unknown-dtype``).
        """
        from openckpt.formats.dtypes import BY_NAME

        dtype = BY_NAME.get(self.dtype)
        if dtype is None:
            raise UnsupportedError("spec.unknown-dtype", Where(""), f"the data type {self.dtype} is not known")
        return dtype.numpy()

    @property
    def size(self) -> int:
        """Number of elements (parameters); 0 where the rank is unknown."""
        return 0 if self.shape is None else prod(self.shape)


class Extent(NamedTuple):
    """Where one piece of a tensor lies: file as shown to people, shard id, place and the CRC that the index holds."""

    path: str
    shard: int
    offset: int
    nbytes: int
    crc: int | None = None
    """CRC-32C, unmasked; None where the format has none"""


class TensorReader(Protocol):
    """One opened checkpoint of any format. Thread-safe; usable after a fork.

    Keys are str; bytes that are not UTF-8 become surrogates (``surrogateescape``). Arrays are C-contiguous and native-endian;
    strings and variants are object arrays of bytes; scalars are 0-d arrays.
    """

    format: str
    """one of ``bundle-v2 table-v1 hdf5 keras-v3 safetensors npz``"""
    path: str
    """the prefix or file as shown to people"""

    @property
    def files(self) -> tuple[str, ...]:
        """The files this checkpoint consists of, as shown to people, the index first; missing ones are not listed."""
        ...

    def keys(self) -> Iterator[str]:
        """Iterate over the keys in stored (table) order."""
        ...

    def items(self) -> Iterator[tuple[str, TensorSpec]]:
        """Iterate over ``(key, spec)`` in the order of `keys`; the fast way to list everything."""
        ...

    def __len__(self) -> int: ...

    def __contains__(self, key: object) -> bool: ...

    def spec(self, key: str) -> TensorSpec:
        """Return the spec of one key; raises `NotFoundError` (``spec.no-such-key``)."""
        ...

    def read(self, key: str, *, verify: bool = True) -> Array:
        """Return a new array with the value, its checksum checked where the format has one and ``verify`` is true."""
        ...

    def view(self, key: str) -> Array:
        """Return a read-only array over the file's own bytes, valid after `close`; raises UnsupportedError
        (``spec.no-view``) where that is impossible. Checksums are not checked.
        """
        ...

    def read_many(
        self,
        keys: Iterable[str],
        *,
        out: Mapping[str, Array] | None = None,
        threads: int | None = None,
        verify: bool = True,
    ) -> dict[str, Array]:
        """Return ``{key: array}``; with ``out`` the values are read into the given arrays (checked first)."""
        ...

    def locate(self, key: str) -> tuple[Extent, ...]:
        """Return where the bytes of a tensor lie, in file order; () where the format does not say."""
        ...

    def graph(self) -> ObjectGraph | None:
        """Return the object graph, or None where the checkpoint has none."""
        ...

    def validate(self, *, data: bool = True, progress: Progress | None = None) -> Iterator[Finding]:
        """Yield everything that is wrong with or odd about this checkpoint's own files; ``data=False`` reads no tensor."""
        ...

    def close(self) -> None:
        """Release the files; views stay valid."""
        ...


def no_such_key(path: str, key: object, keys: Iterable[str]) -> NotFoundError:
    """Make the error for a key that is not there, with the nearest names."""
    from difflib import get_close_matches
    from itertools import islice

    # The search is quadratic in the length of names; 20,000 take a tenth of a second.
    names = list(islice(keys, 20_000))
    forms = {name: name for name in names}
    for name in names:  # people write the path of a variable, without what TensorFlow hangs on it
        forms.setdefault(name.partition("/.ATTRIBUTES/")[0], name)
    near = [forms[form] for form in get_close_matches(str(key), forms, n=3, cutoff=0.6)]
    if not near:
        near = [name for name in names if str(key) in name][:3]
    near = list(dict.fromkeys(near))
    hint = f"nearest names: {', '.join(map(repr, near))}" if near else "no name is near it"
    return NotFoundError("spec.no-such-key", Where(path, str(key)), f"no such key; {hint}")


class ListedTensors:
    """The part of a `TensorReader` that opening has settled: the specs of all tensors lie in ``_specs``, in stored order."""

    path: str
    _specs: dict[str, TensorSpec]

    def keys(self) -> Iterator[str]:
        """Iterate over the keys in stored order."""
        return iter(self._specs)

    def items(self) -> Iterator[tuple[str, TensorSpec]]:
        """Iterate over ``(key, spec)`` in stored order."""
        return iter(self._specs.items())

    def __len__(self) -> int:
        return len(self._specs)

    def __contains__(self, key: object) -> bool:
        return key in self._specs

    def spec(self, key: str) -> TensorSpec:
        """Return the spec of one key; raises `NotFoundError` (``spec.no-such-key``)."""
        spec = self._specs.get(key)
        if spec is None:
            raise no_such_key(self.path, key, self._specs)
        return spec
