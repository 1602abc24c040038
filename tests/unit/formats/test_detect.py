"""What a file is, by its content: accepted and damaged forms as literal bytes, and every file of the corpus."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import pickle
import struct
import typing
from pathlib import Path

import numpy as np
import pytest

from attacks import craft, craft_archive
from containers import zipped
from openckpt.codes import CATALOGUE
from openckpt.errors import CorruptionError, UnsupportedError
from openckpt.formats.detect import Detected, Kind, detect, refusal_of
from openckpt.formats.sstable import encode_table
from openckpt.storage import LOCAL
from openckpt.storage.memory import MemorySource

INDEX = craft.table([(b"", craft.header()), (b"a", craft.entry(craft.floats(1.0, 2.0), 2))])
V1 = craft.table([(b"", b"\x0a\x00\x12\x02\x08\x01"), (b"\0a", b"\x12\x00")])
HDF5 = b"\x89HDF\r\n\x1a\n" + bytes(100)
LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"2f" * 32 + b"\nsize 873000\n"
BUCKET = b"<?xml version='1.0' encoding='UTF-8'?><Error><Code>NoSuchKey</Code><Message>The specified key does not exist.</Message></Error>"


def npy(array: np.ndarray) -> bytes:
    out = io.BytesIO()
    np.save(out, array)
    return out.getvalue()


def zip_of(*names: str) -> bytes:
    return craft_archive.plain_zip([(name, b"x") for name in names])


def big_index() -> bytes:
    """A table whose bytes hold line feeds, so that a text transfer hurts."""
    return encode_table((f"layer{i:05d}/kernel".encode(), b"\n\r value %d \n" % i) for i in range(5000))


def safetensors(header: bytes) -> bytes:
    return struct.pack("<Q", len(header)) + header + bytes(8)


KEY = b'{"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}'
NODE = craft.field(1, craft.field(1, b"dense/kernel") + craft.field(2, b"VariableV2"))
META_GRAPH = craft.field(
    1, craft.field(2, craft.field(1, craft.field(1, b"Add"))) + craft.field(5, b"1.15.0")
) + craft.field(2, NODE)
SAVED_MODEL = b"\x08\x01" + craft.field(2, META_GRAPH)
EVENT = b"\x18" + bytes(7) + b"\xa3\x7fK\x22" + b"\x09" + bytes(8) + b"\x1a\x0dbrain.Event:2" + bytes(10)
TORCH = bytes.fromhex("80028a0a6cfc9c46f9206aa850192e") + b"\x80\x02M\xe9\x03." + bytes(20)

CASES: dict[str, tuple[bytes, Kind]] = {
    "V2 index": (INDEX, "table"),
    "V1 table": (V1, "table"),
    "large table": (big_index(), "table"),
    "empty table": (craft.table([]), "table"),
    "index with junk": (INDEX + b"\n--boundary", "table-trailing-junk"),
    "index cut": (INDEX[:-20], "table-cut"),
    "index cut of two shards": (craft.table([(b"", craft.header(2))])[:30], "table-cut"),
    "HDF5": (HDF5, "hdf5"),
    "HDF5 behind 512": (b"user block".ljust(512) + HDF5, "hdf5"),
    "HDF5 behind 8192 zeros": (bytes(8192) + HDF5, "hdf5"),
    "safetensors": (safetensors(KEY), "safetensors"),
    "safetensors without tensors": (safetensors(b"{}      "), "safetensors"),
    "safetensors cut": (safetensors(KEY)[:40], "safetensors"),
    "npy": (npy(np.arange(3)), "npy"),
    "npz": (zip_of("w.npy", "layer/b.npy"), "npz"),
    "keras": (zip_of("metadata.json", "config.json", "model.weights.h5"), "keras"),
    "keras cut": (zip_of("metadata.json", "config.json", "model.weights.h5")[:80], "keras"),
    "torch zip": (zip_of("archive/data.pkl", "archive/version", "archive/data/0"), "torch-zip"),
    "zip": (zip_of("run/ckpt.index"), "zip"),
    "zip of npz names and others": (zip_of("a.npy", "readme"), "zip"),
    "empty zip": (craft_archive.zip_file([]), "zip"),
    "tar": (craft_archive.tar(craft_archive.tar_file(b"x", b"1")), "tar"),
    "tar.gz": (gzip.compress(craft_archive.tar(craft_archive.tar_file(b"x", b"1"))), "tar.gz"),
    "tar.bz2": (bz2.compress(craft_archive.tar(craft_archive.tar_file(b"x", b"1"))), "tar.bz2"),
    "tar.xz": (lzma.compress(craft_archive.tar(craft_archive.tar_file(b"x", b"1"))), "tar.xz"),
    "gz": (gzip.compress(INDEX), "gz"),
    "bz2": (bz2.compress(INDEX), "bz2"),
    "xz": (lzma.compress(INDEX), "xz"),
    "mag": (craft_archive.mag(V1), "mag"),
    "lfs": (LFS, "lfs-pointer"),
    "lfs with CRLF": (LFS.replace(b"\n", b"\r\n"), "lfs-pointer"),
    "html": (b"\n<!DOCTYPE html>\n<html><head><title>Sign in &amp; go</title>", "html"),
    "html in capitals": (b"<HTML><BODY>", "html"),
    "html with comment": (b"<!-- served by x -->\n<html>", "html"),
    "xhtml": (b'<?xml version="1.0"?><html xmlns="http://www.w3.org/1999/xhtml">', "html"),
    "bucket error": (BUCKET, "xml"),
    "bucket error without prologue": (BUCKET[BUCKET.index(b"<Error>") :], "xml"),
    "xml": (b"<?xml version='1.0'?><svg/>", "xml"),
    "json": (b'{"model_type": "bert"}', "json"),
    "json with BOM": (b'\xef\xbb\xbf[{"a": 1}]', "json"),
    "manifest": (b'model_checkpoint_path: "ckpt-7"\n', "manifest"),
    "manifest with comment": (b"# made by hand\n\nall_model_checkpoint_paths: 'ckpt-7'\n", "manifest"),
    "manifest with Latin-1": (b'model_checkpoint_path: "mod\xe8le"\n', "manifest"),
    "text": (b"404: Not Found", "text"),
    "vocabulary": (b"[PAD]\n[UNK]\n", "text"),
    "text cut inside a letter": (("x" * 4095 + "é" * 3000).encode(), "text"),
    "UTF-16": ("hello".encode("utf-16"), "text"),
    "graph in text": (b'node {\n  name: "x"', "graph"),
    "frozen graph": (NODE + NODE, "graph"),
    "meta graph": (META_GRAPH, "meta-graph"),
    "saved model": (SAVED_MODEL, "saved-model"),
    "events": (EVENT, "tfevents"),
    "pickle 2": (pickle.dumps({"a": [1]}, 2), "pickle"),
    "pickle 4": (pickle.dumps({"a": [1]}, 4), "pickle"),
    "pickle 0": (pickle.dumps({"a": [1]}, 0), "pickle"),
    "torch legacy": (TORCH, "torch-pickle"),
    "msgpack": (b"\x82\xa6params\x81\xa1w\x01\xa4step\x05", "msgpack"),
    "msgpack map 16": (b"\xde\x00\x01\xd9\x06target\x01", "msgpack"),
    "tflite": (b"\x1c\0\0\0TFL3" + bytes(30), "other"),
    "zstd": (b"\x28\xb5\x2f\xfd" + bytes(30), "other"),
    "png": (b"\x89PNG\r\n\x1a\n" + bytes(9), "other"),
    "empty": (b"", "empty"),
    "zeros": (bytes(100_000), "zeros"),
    "floats": (np.linspace(-1, 1, 1000).tobytes(), "unknown"),
    "zeros, then floats": (bytes(90_000) + np.linspace(-1, 1, 9).tobytes(), "unknown"),
    "one byte": (b"\x01", "unknown"),
    "fixmap of nothing readable": (b"\x82\xa3\x00\x01\x02" + bytes(40), "unknown"),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_kinds(name: str) -> None:
    """Each sample is what it is, with a sentence to say so and, where it is refused, a code of the catalogue."""
    data, kind = CASES[name]

    found = detect(MemorySource("no-suffix", data))

    assert found.kind == kind
    assert found.detail
    assert not found.detail.endswith(".")
    assert found.code is None or found.code in CATALOGUE


def test_every_kind_has_a_sample() -> None:
    """The table above, and the one below, leave no kind out."""
    assert {kind for _, kind in CASES.values()} | {"text-damaged"} == set(typing.get_args(Kind))


def crlf(data: bytes) -> bytes:
    return data.replace(b"\n", b"\r\n")


def lf(data: bytes) -> bytes:
    return data.replace(b"\r\n", b"\n")


def replaced(data: bytes) -> bytes:
    return data.decode("utf-8", "replace").encode()


def from_latin_1(data: bytes) -> bytes:
    return data.decode("latin-1").encode()


DAMAGE = [crlf, lf, replaced, from_latin_1]
BINARY = {
    "table": big_index().replace(b"\n\r", b"\r\n"),
    "hdf5": HDF5 + b"\r\n" * 20 + bytes(range(128, 256)),
    "gzip": gzip.compress(np.random.default_rng(1).bytes(1 << 19), 1, mtime=0),
    "npy": npy(np.linspace(0, 1, 4000)),
}


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("what", BINARY)
def test_text_mode_damage(what: str, damage: typing.Callable[[bytes], bytes]) -> None:
    """A binary file that was translated, or decoded and encoded, as text is told as that, not as another format."""
    data = damage(BINARY[what])
    assert data != BINARY[what]

    found = detect(MemorySource("x", data))

    # Line ends inside gzip and npy leave the signature alone; their readers find the damage by length and checksum.
    if what in ("gzip", "npy") and damage in (crlf, lf):
        assert found.kind in ("gz", "npy")
    else:
        assert (found.kind, found.code) == ("text-damaged", "detect.text-damaged")


def test_text_mode_damage_of_a_zip() -> None:
    """The directory of a zip no longer lies where its end record says."""
    archive = zipped({"model.weights.h5": b"\x89HDF" + b"line\r\n" * 50})

    for damage in (crlf, lf):
        assert detect(MemorySource("x", damage(archive))).kind == "text-damaged"


def test_details_carry_the_facts() -> None:
    """What a person needs stands in the sentence: sizes, the server's words, the first key."""
    details = {name: detect(MemorySource("x", CASES[name][0])).detail for name in CASES}

    assert details["lfs"] == "a Git LFS pointer, oid 2f2f2f2f2f2f: the real file (873 kB) was never downloaded"
    assert "873 kB" in details["lfs with CRLF"]
    assert details["bucket error"].endswith("NoSuchKey (The specified key does not exist.)")
    assert "'Sign in & go'" in details["html"]
    assert "'404: Not Found'" in details["text"]
    assert "'params'" in details["msgpack"]
    assert "11 bytes behind its end" in details["index with junk"]
    assert "its end is missing" in details["keras cut"]
    assert "user block of 512 bytes" in details["HDF5 behind 512"]


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b'{"metadata": {}, "weight_map": {"/w": "f"}}', "split over several files"),
        (b'{"class_name": "Functional", "config": {}, "keras_version": "3.1"}', "without its weights"),
        (b'{"format": "layers-model", "weightsManifest": []}', "TensorFlow.js"),
        (b'{"error": "Repository not found"}', "'Repository not found'"),
    ],
)
def test_json_details(data: bytes, words: str) -> None:
    """JSON files that lie beside weights are told apart."""
    assert words in detect(MemorySource("x", data)).detail


def test_refusals() -> None:
    """Damage and leftovers are corruption, other formats are unsupported; what may hold a checkpoint is not refused."""
    for name, (data, kind) in CASES.items():
        found = detect(MemorySource("x", data))
        error = refusal_of(found, "x")
        if kind in ("lfs-pointer", "html", "empty", "text", "table-cut", "table-trailing-junk", "zeros"):
            assert type(error) is CorruptionError, name
        elif kind in ("torch-zip", "torch-pickle", "pickle", "msgpack", "npy", "other", "graph"):
            assert type(error) is UnsupportedError, name
        elif kind in ("table", "hdf5", "keras", "npz", "safetensors", "manifest", "zip", "tar.gz", "mag", "gz"):
            assert error is None, name
    lfs = refusal_of(detect(MemorySource("x", LFS)), "a b.h5")
    assert lfs is not None
    assert lfs.fix == "git lfs install && git lfs pull"


class Counting(MemorySource):
    """Counts the bytes that are read."""

    taken = 0

    def read_at(self, offset: int, size: int) -> bytes:
        self.taken += size
        return super().read_at(offset, size)


@pytest.mark.parametrize(
    "start", [b"\x07", b"\0", b"text ", b"PK\x03\x04", b"\x1f\x8b\x08", b"\x0a\x05", HDF5, b"\x82\xa3abc"]
)
def test_little_is_read(start: bytes) -> None:
    """Of 64 MiB of anything no more than 400 KiB is looked at."""
    source = Counting("x", start + bytes(1 << 26))

    detect(source)

    assert source.taken < 400 << 10


@pytest.mark.parametrize("data", [data for data, _ in CASES.values()], ids=list(CASES))
def test_every_beginning_is_something(data: bytes) -> None:
    """A file cut anywhere in its first 400 bytes has a verdict, never an exception."""
    for cut in range(min(len(data), 400)):
        assert isinstance(detect(MemorySource("x", data[:cut])), Detected)


# What lies in the corpus beside tables, HDF5 and manifests, by suffix.
_SUFFIXES = {
    ".index": "table", ".meta": "meta-graph", ".h5": "hdf5", ".hdf5": "hdf5", ".h5f": "hdf5", ".keras": "keras",
    ".json": "json", ".pbtxt": "graph", ".txt": "text", ".mag": "xml", ".tar": "xml",
}  # fmt: skip


@pytest.mark.corpus
def test_corpus(corpus: Path) -> None:
    """Every real file is what its case says, the pointers and error pages under false names included."""
    wrong = []
    records = json.loads((corpus / "corpus.json").read_text())["cases"]
    for record in records:
        for file in record["files"]:
            name = file["as"]
            found = detect(LOCAL.open(str(corpus / record["id"] / name)))
            if record["kind"] == "lfs-pointer":
                expected: set[str] = {"lfs-pointer"}
            elif name.rpartition("/")[2] == "checkpoint":
                expected = {"manifest"}
            elif name.endswith("saved_model.pb"):
                expected = {"saved-model"}
            elif ".data-" in name:
                expected = {"unknown", "zeros"}  # a shard has no signature, and one of the corpus is a zero
            else:
                suffix = "." + name.rpartition(".")[2]  # of ".meta" too
                expected = {_SUFFIXES[suffix]} if suffix in _SUFFIXES else {"table", "hdf5", "text", "unknown"}
            if found.kind not in expected:
                wrong.append((record["id"], name, found))

    assert not wrong
