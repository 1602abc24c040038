"""Hostile HDF5 files (formats 8.2, 8.3): links and storage that lead elsewhere, sizes without bytes, loops, bombs, damage."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable
from typing import Any

from attacks.attack import Attack


def _hdf5(build: Callable[[Any], None], **options: Any) -> bytes:
    from hdf5_bytes import hdf5

    return hdf5(build, **options)


def _file(
    name: str,
    code: str,
    build: Callable[[Any], None],
    *,
    how: str = "read",
    damage: Callable[[bytes], bytes] = bytes,
    **options: Any,
) -> Attack:
    return Attack(name, lambda: {"x.h5": damage(_hdf5(build, **options))}, "x.h5", code, how=how)  # type: ignore[arg-type]


def _raw(name: str, code: str, data: bytes) -> Attack:
    return Attack(name, {"x.h5": data}, "x.h5", code)


def _index(name: str, code: str, index: bytes) -> Attack:
    return Attack(name, {"m.weights.json": index}, "m.weights.json", code)


def _plain(file: Any) -> None:
    import numpy as np

    file["a"] = np.arange(8, dtype=np.float32)


def _link(make: Callable[[Any], Any]) -> Callable[[Any], None]:
    def build(file: Any) -> None:
        import h5py

        _plain(file)
        file["bad"] = make(h5py)

    return build


def _virtual(file: Any) -> None:
    import h5py

    layout = h5py.VirtualLayout((2,), "f4")
    layout[:] = h5py.VirtualSource("../outside.h5", "data", (2,))
    file.create_virtual_dataset("bad", layout)


def _unlimited_virtual(file: Any) -> None:
    """Its size is that of the other file: asking for it is what opens that file."""
    import h5py

    layout = h5py.VirtualLayout((2,), "f4", maxshape=(None,))
    layout[: h5py.h5s.UNLIMITED] = h5py.VirtualSource("../outside.h5", "data", (2,), maxshape=(None,))[
        : h5py.h5s.UNLIMITED
    ]
    file.create_virtual_dataset("bad", layout)


def _declared(shape: tuple[int, ...], **options: Any) -> Callable[[Any], None]:
    return lambda file: file.create_dataset("a", shape, "f8", **options)


def _direct_chunk(data: Callable[[], bytes], **options: Any) -> Callable[[Any], None]:
    """A dataset of one chunk whose stored bytes are ``data``, whatever its filters would have made."""

    def build(file: Any) -> None:
        dataset = file.create_dataset("a", (1024,), "u1", chunks=(1024,), **options)
        dataset.id.write_direct_chunk((0,), data())

    return build


def _large_chunk(file: Any) -> None:
    """Ten bytes of a dataset whose one chunk says that it unpacks to 2 GiB."""
    dataset = file.create_dataset("a", (10,), "u1", maxshape=(None,), chunks=(1 << 31,), compression="gzip")
    dataset.id.write_direct_chunk((0,), zlib.compress(bytes(10)))


def _inflating() -> bytes:
    """64 MiB of zeros in 64 kB, in the place of 1 kB."""
    return zlib.compress(bytes(64 << 20), 9)


def _chain(depth: int) -> Callable[[Any], None]:
    return lambda file: file.create_group("/".join("g" for _ in range(depth)))


def _loop(file: Any) -> None:
    _plain(file)
    group = file.create_group("g")
    for number in range(50):
        group[f"again{number}"] = file["/"]
        group[f"self{number}"] = group


def _ladder(file: Any) -> None:
    """Thirty groups, each holding the next one twice: a billion paths to the last."""
    group = file.create_group("g")
    for _ in range(30):
        following = group.create_group("a")
        group["b"] = following
        group = following
    _plain(group)


def _foreign_filter(file: Any) -> None:
    import h5py

    plan = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plan.set_chunk((8,))
    plan.set_filter(32015, h5py.h5z.FLAG_OPTIONAL, (3,))
    space = h5py.h5s.create_simple((8,))
    h5py.h5d.create(file.id, b"a", h5py.h5t.IEEE_F32LE, space, plan)
    import numpy as np

    file["a"].id.write_direct_chunk((0,), np.zeros(8, np.float32).tobytes())


def _heap_strings(file: Any) -> None:
    import h5py

    file.create_dataset("a", data=["first string", "second string"], dtype=h5py.string_dtype())


def _model(config: str) -> Callable[[Any], None]:
    def build(file: Any) -> None:
        file.attrs["model_config"] = config
        group = file.create_group("model_weights")
        group.attrs["layer_names"] = [b"a"]
        _plain(group.create_group("a"))

    return build


def _flip(needle: bytes, offset: int = 0, mask: int = 0xFF) -> Callable[[bytes], bytes]:
    def damage(data: bytes) -> bytes:
        at = data.index(needle) + offset
        return data[:at] + bytes([data[at] ^ mask]) + data[at + 1 :]

    return damage


def _flip_last(needle: bytes, offset: int) -> Callable[[bytes], bytes]:
    def damage(data: bytes) -> bytes:
        at = data.rindex(needle) + offset
        return data[:at] + bytes([data[at] ^ 0xFF]) + data[at + 1 :]

    return damage


def _address_beyond(data: bytes) -> bytes:
    """Let the layout message say that the bytes of the dataset begin at the last byte of the file."""
    from openckpt.formats.keras_h5 import open_hdf5
    from openckpt.storage.memory import MemoryStore

    offset = open_hdf5(MemoryStore({"x": data}), "x").locate("a")[0].offset
    return data.replace(offset.to_bytes(8, "little"), (len(data) - 1).to_bytes(8, "little"))


def _open_for_writing(data: bytes) -> bytes:
    return data[:11] + bytes([data[11] | 1]) + data[12:]


LAMBDA = json.dumps({"class_name": "Lambda", "config": {"name": "f", "function_type": "lambda", "function": ["4wEA"]}})
FLOATS = b"\0\0\x80\x3f\0\0\0\x40"

CASES = [
    _file("external-link", "hdf5.external-link", _link(lambda h5py: h5py.ExternalLink("../outside.h5", "/data"))),
    _file("external-link-to-passwd", "hdf5.external-link", _link(lambda h5py: h5py.ExternalLink("/etc/passwd", "/"))),
    _file("soft-link-to-passwd", "hdf5.soft-link", _link(lambda h5py: h5py.SoftLink("/etc/passwd")), how="doctor"),
    _file("soft-link-to-itself", "hdf5.soft-link", _link(lambda h5py: h5py.SoftLink("/bad")), how="doctor"),
    _file(
        "external-storage",
        "hdf5.external-storage",
        lambda f: f.create_dataset("a", (4,), "u1", external=[("../outside.h5", 0, 4)]),
    ),
    _file(
        "external-storage-of-passwd",
        "hdf5.external-storage",
        lambda f: f.create_dataset("a", (4,), "u1", external=[("/etc/passwd", 0, 4)]),
    ),
    _file("virtual-dataset", "hdf5.virtual-dataset", _virtual, libver="latest"),
    _file("virtual-dataset-of-unknown-size", "hdf5.virtual-dataset", _unlimited_virtual, libver="latest"),
    _file("petabyte-without-bytes", "hdf5.declared-size", _declared((10**15,), chunks=(10**6,))),
    _file("contiguous-petabyte-without-bytes", "hdf5.declared-size", _declared((10**15,))),
    _file("chunk-of-two-gigabytes", "hdf5.declared-size", _large_chunk),
    _file(
        "strings-without-bytes", "hdf5.declared-size", lambda f: f.create_dataset("a", (10**12,), "S1", chunks=(1000,))
    ),
    _file("chunk-that-inflates", "hdf5.chunk-damaged", _direct_chunk(_inflating, compression="gzip")),
    _file("chunk-that-is-no-stream", "hdf5.chunk-damaged", _direct_chunk(lambda: b"x" * 100, compression="gzip")),
    _file(
        "szip-chunk-of-four-gigabytes", "hdf5.chunk-damaged", _direct_chunk(lambda: b"\xff" * 100, compression="szip")
    ),
    _file("lzf-chunk-of-nonsense", "hdf5.chunk-damaged", _direct_chunk(lambda: b"\xff" * 100, compression="lzf")),
    _file("shuffled-chunk-too-short", "hdf5.chunk-damaged", _direct_chunk(lambda: b"x" * 10, shuffle=True)),
    _file(
        "wrong-chunk-checksum", "hdf5.chunk-checksum", _direct_chunk(lambda: bytes(1024) + b"\1\2\3\4", fletcher32=True)
    ),
    _file("filter-that-is-a-plugin", "hdf5.filter", _foreign_filter),
    _file("nesting-of-a-thousand-groups", "limits.exceeded", _chain(1000)),
    _file("groups-that-contain-themselves", "hdf5.shared-group", _loop, how="doctor"),
    _file("a-billion-paths", "hdf5.shared-group", _ladder, how="doctor"),
    _file("truncated", "hdf5.truncated", _plain, damage=lambda data: data[:-1]),
    _file("truncated-in-the-superblock", "hdf5.truncated", _plain, damage=lambda data: data[:50]),
    _file("never-closed", "hdf5.not-closed", _plain, libver="latest", damage=_open_for_writing),
    _file(
        "superblock-checksum",
        "hdf5.unreadable",
        _plain,
        libver="latest",
        damage=lambda data: data[:44] + b"\0\0\0\0" + data[48:],
    ),
    _file("superblock-with-a-driver", "hdf5.driver", _plain, damage=lambda data: data[:48] + bytes(8) + data[56:]),
    _file("superblock-from-the-future", "hdf5.version", _plain, damage=lambda data: data[:8] + b"\x63" + data[9:]),
    _file("offsets-of-255-bytes", "hdf5.superblock", _plain, damage=lambda data: data[:13] + b"\xff" + data[14:]),
    _file("dataset-beyond-the-end", "hdf5.object-damaged", _plain, damage=_address_beyond),
    _file("object-header-of-nonsense", "hdf5.object-damaged", _plain, libver="latest", damage=_flip_last(b"OHDR", 5)),
    _file("heap-that-is-none", "hdf5.heap", _heap_strings, damage=_flip(b"GCOL")),
    _file("heap-larger-than-the-file", "hdf5.heap", _heap_strings, damage=_flip(b"GCOL", 14)),
    _file("code-in-a-lambda-layer", "keras.lambda-layer", _model(LAMBDA), how="doctor"),
    _file("config-nested-thousands-deep", "keras.config", _model("[" * 50_000), how="doctor"),
    _index("shards-that-climb-out", "hdf5.unsafe-shard-name", b'{"weight_map": {"/a": "../outside.h5"}}'),
    _index("shards-with-an-absolute-path", "hdf5.unsafe-shard-name", b'{"weight_map": {"/a": ["/etc/passwd"]}}'),
    _index("shard-that-is-not-there", "hdf5.shard-missing", b'{"weight_map": {"/a": "m_00000.weights.h5"}}'),
    _index("index-of-shards-that-is-nested", "hdf5.index", b'{"weight_map":' * 100_000),
]
