"""The worked hex examples of the format pages are what the code reads and writes."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from dual_bytes import encode_shard, parts_of
from openckpt.errors import Where
from openckpt.formats.bundle import BundleEntry, Strings, encode_bundle, encode_entry, parse_entry
from openckpt.formats.crc import crc32c
from openckpt.formats.manifest import Manifest, encode_manifest, parse_manifest
from openckpt.formats.metagraph import parse_meta_graph
from openckpt.formats.objectgraph import encode_object_graph, parse_object_graph
from openckpt.formats.safetensors import open_safetensors
from openckpt.formats.slicekeys import FULL
from openckpt.formats.sstable import Table
from openckpt.formats.v1 import encode_v1
from openckpt.limits import DEFAULT_LIMITS
from openckpt.storage.archive import open_archive
from openckpt.storage.memory import MemorySource, MemoryStore

PAGES = Path(__file__).parents[2] / "docs" / "format"


def hex_blocks(page: str) -> list[bytes]:
    """Return the bytes of every ```hex block of a page; comments start with #."""
    text = (PAGES / page).read_text(encoding="utf-8")
    blocks = re.findall(r"```hex\n(.*?)```", text, re.DOTALL)
    return [bytes.fromhex(re.sub(r"#.*", "", block)) for block in blocks]


def test_the_table_page_shows_the_index_that_the_encoder_writes() -> None:
    """121 bytes: one int32 tensor."""
    (example,) = hex_blocks("table.md")
    files = encode_bundle({"a": np.array([1, 2], "int32")}, "p")
    assert files["p.index"] == example


def test_the_bundle_page_shows_an_entry_and_a_string_tensor() -> None:
    """The entries parse to what their comments say and are encoded so; and so are the strings."""
    entry, strings, merged = hex_blocks("bundle.md")
    parsed = parse_entry(entry, Where("page"), DEFAULT_LIMITS)
    assert (parsed.enum, parsed.shape, parsed.size) == (3, (2,), 8)
    assert parsed.crc == crc32c(np.array([1, 2], "<i4").tobytes())
    files = encode_bundle({"s": Strings([b"a", b"bc", b""], (3,))}, "p")
    assert files["p.data-00000-of-00001"] == strings
    partitioned = BundleEntry(1, (3, 4), 3, 0, 0, 0, tuple(((start, 1), FULL) for start in (2, 0, 1)))
    assert encode_entry(partitioned) == merged


def test_the_manifest_page_shows_what_is_written() -> None:
    """One path with everything that needs an escape."""
    (line,) = hex_blocks("manifest.md")
    manifest = Manifest('a"\\\u00e9\x01')
    assert encode_manifest(manifest) == line
    assert parse_manifest(line, "page") == manifest


def test_the_object_graph_page_shows_a_slot_variable() -> None:
    """Four nodes; the comments say which is which."""
    (data,) = hex_blocks("object-graph.md")
    graph = parse_object_graph(data, "page")
    assert [graph.name(number) for number in range(4)] == [
        "(root)", "(root).opt", "(root).w", "(root).opt's state 'm' for (root).w",
    ]  # fmt: skip
    assert [key for _, key in graph.paths()] == [path for path, _ in graph.paths()] == [
        "w/.ATTRIBUTES/VARIABLE_VALUE", "w/.OPTIMIZER_SLOT/opt/m/.ATTRIBUTES/VARIABLE_VALUE",
    ]  # fmt: skip
    assert encode_object_graph(graph) == data


def test_the_v1_page_shows_the_values_of_a_table() -> None:
    """The three values one after the other, as the table holds them."""
    (data,) = hex_blocks("v1.md")
    (file,) = encode_v1({"a": np.array([1, -1], "int32"), "b": np.array(2.0, "float32")}, "m").values()
    assert b"".join(value for _, value in Table(MemorySource("m", file)).items()) == data


def test_the_page_of_meta_graphs_shows_one() -> None:
    """Version, saver, one variable."""
    (data,) = hex_blocks("meta-and-savedmodel.md")
    meta = parse_meta_graph(MemorySource("page", data))
    assert (meta.tensorflow_version, meta.producer, meta.nodes) == ("1.15", 27, 1)
    assert meta.saver is not None
    assert meta.saver.version == 2
    assert [(variable.key, variable.trainable) for variable in meta.variables] == [("w", True)]


@pytest.mark.parametrize("page", sorted(path.name for path in PAGES.glob("*.md")))
def test_format_pages_stay_short(page: str) -> None:
    """A format page is read in one sitting: under 120 lines."""
    assert len((PAGES / page).read_text(encoding="utf-8").splitlines()) < 120


def test_the_page_of_dual_files_shows_one() -> None:
    """A whole file: it is what the layout gives, and it reads as the page says."""
    (example,) = hex_blocks("dual.md")
    assert encode_shard(parts_of(b"s", Strings([b"hi"])) + parts_of(b"a", np.array([1, 2], "<i2"))) == example
    reader = open_safetensors(MemoryStore({"x.safetensors": example}), "x.safetensors")
    assert reader.read("a").tolist() == [1, 2]
    assert reader.read("s").item() == b"hi"


def test_the_archives_page_shows_a_zip() -> None:
    """A hundred bytes that open as an archive of one stored member."""
    (example,) = hex_blocks("archives.md")
    store = open_archive(MemorySource("x.zip", example))
    assert store.open("x").read_at(0, 1) == b"1"
    assert list(store.validate()) == []
