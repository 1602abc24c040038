"""The table format: TensorFlow's bytes out, checked blocks in."""

from __future__ import annotations

import pytest

from openckpt.errors import ConflictError, CorruptionError, FormatError, LimitError
from openckpt.findings import Finding
from openckpt.formats.crc import crc32c, mask_crc
from openckpt.formats.sstable import Table, encode_table
from openckpt.limits import Limits
from openckpt.storage.memory import MemorySource

HEADER = bytes.fromhex("08011a020801")

# The complete index of one int32[2] tensor "a" = [1, 2], as TensorFlow 2.21 wrote it (formats 1.5).
GOLDEN = bytes.fromhex(
    "000006 08011a020801"
    "00010f 61 0803120412020802280835bfdfdb7a"
    "0000000001000000 00345aa4dc"
    "0000000001000000 00c0f2a1b0"
    "000102 62 0024 0000000001000000 005a996b35"
    "2908360e" + "00" * 36 + "57fb808b247547db"
)


def table(data: bytes, **options: Limits) -> Table:
    return Table(MemorySource("t.index", data), **options)


def many(count: int) -> list[tuple[bytes, bytes]]:
    return [(b"", HEADER)] + [(b"layer_%06d/kernel" % n, b"value %d" % n) for n in range(count)]


def test_the_worked_example_is_written_byte_for_byte() -> None:
    """encode_table gives the 121 bytes that TensorFlow wrote."""
    entry = bytes.fromhex("0803120412020802280835bfdfdb7a")
    assert len(GOLDEN) == 121
    assert encode_table([(b"", HEADER), (b"a", entry)]) == GOLDEN


def test_the_worked_example_is_read() -> None:
    """Both entries come back, in order and by key."""
    t = table(GOLDEN)
    assert [key for key, _ in t.items()] == [b"", b"a"]
    assert t.get(b"") == HEADER
    assert t.get(b"b") is None
    assert t.first() == (b"", HEADER)


@pytest.mark.parametrize("compress", [False, True], ids=["raw", "snappy"])
def test_many_blocks_round_trip(compress: bool) -> None:
    """Every key of a table of several blocks is found by lookup and by the walk."""
    items = many(40_000)
    encoded = encode_table(items, compress_blocks=compress)
    t = table(encoded)
    assert len(t.handles) > 2
    data_ends = [handle.offset + handle.size for handle in t.handles]
    assert {encoded[end] for end in data_ends} == {int(compress)}  # the byte of the compression type
    assert list(t.items()) == items
    for key, value in items[::997]:
        assert t.get(key) == value
        assert t.get(key + b"!") is None
    assert t.get(b"zzz") is None


def test_an_empty_table_has_no_first_entry() -> None:
    """A table without entries is legal."""
    t = table(encode_table([]))
    assert t.first() is None
    assert list(t.items()) == []
    assert t.get(b"a") is None


def test_an_oversized_entry_gets_a_block_of_its_own() -> None:
    """An entry of 512 KiB or more starts a new block (formats 1.4)."""
    items = [(b"a", b"x"), (b"b", b"y" * 600_000), (b"c", b"z")]
    t = table(encode_table(items))
    assert len(t.handles) == 3
    assert list(t.items()) == items


def test_keys_out_of_order_are_not_written() -> None:
    """The encoder refuses what no reader could find."""
    with pytest.raises(ValueError, match="sort"):
        encode_table([(b"b", b""), (b"a", b"")])


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "table.too-short"),
        (b"\0" * 47, "table.too-short"),
        (b"\0" * 48, "table.bad-magic"),
        (GOLDEN + b"\n", "table.bad-magic"),
        (GOLDEN[:-48] + b"\xff" * 40 + GOLDEN[-8:], "table.footer-handle"),
        (GOLDEN[:-48] + bytes.fromhex("2908ff7f0e").ljust(40, b"\0") + GOLDEN[-8:], "table.handle-past-end"),
        (GOLDEN[:5] + b"\x00" + GOLDEN[6:], "table.block-crc"),
    ],
    ids=["empty", "47 bytes", "zeros", "trailing junk", "footer of ff", "handle past end", "flipped byte"],
)
def test_damaged_tables_are_refused_with_a_code(data: bytes, code: str) -> None:
    """Each damage has its code and names the file."""
    with pytest.raises(FormatError) as caught:
        list(table(data).items())
    assert caught.value.code == code
    assert caught.value.where.path == "t.index"


def _with_index_block(block: bytes, kind: int = 0) -> bytes:
    """A table whose only block is its index block, whatever that holds."""
    stored = block + bytes((kind,))
    stored += mask_crc(crc32c(stored)).to_bytes(4, "little")
    footer = bytes((0, 0, 0, len(block))).ljust(40, b"\0") + GOLDEN[-8:]
    return stored + footer


@pytest.mark.parametrize(
    ("block", "kind", "code"),
    [
        (b"", 0, "table.bad-block"),
        (b"\xff\xff\xff\x7f", 0, "table.bad-block"),
        (bytes.fromhex("050102 6162 63 0000000001000000"), 0, "table.bad-entry"),
        (bytes.fromhex("000170 61 0000000001000000"), 0, "table.bad-entry"),
        (bytes.fromhex("000101 61 80 0000000001000000"), 0, "table.bad-handle"),
        (bytes.fromhex("000100 62 000100 61 0000000001000000"), 0, "table.key-order"),
        (b"\0\0\0\0\1\0\0\0", 2, "table.block-type"),
        (b"\xff\xff\xff\xff\x0fabcd", 1, "table.snappy"),
        (b"\x08\x00", 1, "table.snappy"),
    ],
)
def test_hostile_blocks_are_refused_with_a_code(block: bytes, kind: int, code: str) -> None:
    """A block with a valid checksum may still lie."""
    with pytest.raises(FormatError) as caught:
        list(table(_with_index_block(block, kind)).items())
    assert caught.value.code == code


def test_the_limit_on_blocks_names_itself() -> None:
    """A block above the cap raises LimitError that says which limit to raise."""
    with pytest.raises(LimitError, match="block_bytes"):
        list(table(encode_table(many(100)), limits=Limits(block_bytes=50)).items())


def test_salvage_skips_the_damaged_block_only() -> None:
    """With one block of several damaged, the entries of the others still come."""
    items = many(40_000)
    data = bytearray(encode_table(items))
    t = table(bytes(data))
    data[t.handles[1].offset + 100] ^= 1
    found = list(table(bytes(data)).salvage_blocks())
    findings = [part for part in found if isinstance(part, Finding)]
    assert [finding.code for finding in findings] == ["table.block-crc"]
    assert findings[0].where.offset == t.handles[1].offset
    saved = sum(len(part[0]) for part in found if not isinstance(part, Finding))
    assert 0 < saved < len(items)


def test_a_damaged_metaindex_is_a_warning_only() -> None:
    """Nothing reads the metaindex block, so its damage is reported and reading goes on (formats 9, row 16)."""
    data = bytearray(GOLDEN)
    data[-48] = 0x2A
    t = table(bytes(data))
    assert [finding.code for finding in t.validate()] == ["table.metaindex"]
    assert t.get(b"") == HEADER


def test_a_sound_table_has_no_finding() -> None:
    """No false alarm on the golden bytes and on several blocks."""
    assert list(table(GOLDEN).validate()) == []
    assert list(table(encode_table(many(40_000))).validate()) == []


class _Replaced(MemorySource):
    """A large file that another program has replaced."""

    def unchanged(self) -> bool:
        return False


def test_a_large_index_that_is_replaced_meanwhile_is_noticed() -> None:
    """Blocks that are read on demand come from one file or not at all."""
    data = encode_table(many(60_000))
    assert len(data) > 1 << 20
    with pytest.raises(ConflictError) as caught:
        Table(_Replaced("t.index", data))
    assert caught.value.code == "storage.changed"


def test_a_lying_index_block_is_noticed() -> None:
    """Keys that are filed under a separator that excludes them would be listed and never found."""
    items = many(40_000)
    data = encode_table(items)
    t = table(data)
    index = bytearray(data[t._index.offset : t._index.offset + t._index.size])
    at = index.index(b"layer")
    index[at] = ord("a")
    patched = data[: t._index.offset] + bytes(index) + b"\0"
    patched += mask_crc(crc32c(bytes(index) + b"\0")).to_bytes(4, "little") + data[-48:]
    with pytest.raises(CorruptionError) as caught:
        list(table(patched).items())
    assert caught.value.code in ("table.separator", "table.key-order")
