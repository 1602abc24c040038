"""Hostile object graphs (formats 6.1): inside a sound bundle, as one string with a right checksum."""

from __future__ import annotations

from attacks.attack import Attack
from attacks.craft import GRAPH_KEY, bundle, entry, field, floats, strings, varint

VALUE = floats(1.0)
HUGE = (1 << 31) - 1


def _files(graph: bytes) -> dict[str, bytes]:
    data, crc = strings(graph)
    items = [(GRAPH_KEY, entry(data, dtype=7, offset=len(VALUE), crc=crc)), (b"a", entry(VALUE))]
    return bundle(items, VALUE + data)


def _graph(name: str, code: str, graph: bytes, *, how: str = "read") -> Attack:
    return Attack(name, _files(graph), "ckpt", code, how=how)  # type: ignore[arg-type]


def node(*fields: bytes) -> bytes:
    return field(1, b"".join(fields))


def child(node_id: int, name: bytes = b"c") -> bytes:
    return field(1, field(1, node_id) + field(2, name))


def attribute(key: bytes) -> bytes:
    return field(2, field(1, b"VARIABLE_VALUE") + field(3, key))


def slot(variable: int, state: int) -> bytes:
    return field(3, field(1, variable) + field(2, b"m") + field(3, state))


def _all_to_all(count: int) -> bytes:
    """Every node knows every other: the ways between them cannot be counted."""
    edges = b"".join(child(number, b"%d" % number) for number in range(count))
    return node(edges) * (count - 1) + node(edges, attribute(b"a/.ATTRIBUTES/absent"))


def _chain(count: int) -> bytes:
    return b"".join(node(child(number)) for number in range(1, count)) + node(attribute(b"gone"))


CASES = [
    _graph("no-node", "graph.empty", b""),
    _graph("unknown-fields-only", "graph.empty", field(2, b"x") * 1000),
    _graph("cut-in-a-node", "graph.does-not-parse", node(child(0))[:-2]),
    _graph("node-longer-than-the-graph", "graph.does-not-parse", b"\x0a" + varint(1 << 40)),
    _graph("child-longer-than-its-node", "graph.does-not-parse", field(1, b"\x0a\x7f\x08\x00") + bytes(200)),
    _graph("name-longer-than-its-child", "graph.does-not-parse", node(field(1, b"\x12\x7f")) + node(b"\x7a\x7f" + bytes(127))),
    _graph("varint-without-end", "graph.does-not-parse", b"\x0a" + b"\xff" * 1000),
    _graph("name-that-is-no-text", "graph.does-not-parse", node(child(0, b"\xff\xfe"))),
    _graph("groups-in-groups", "graph.does-not-parse", b"\x0b" * 100_000),
    _graph("field-number-0", "graph.does-not-parse", b"\x02\x00"),
    _graph("child-out-of-range", "graph.edge-out-of-range", node(child(1))),
    _graph("child-of-two-billion", "graph.edge-out-of-range", node(child(HUGE))),
    _graph("child-below-zero", "graph.edge-out-of-range", node(child(-1))),
    _graph("child-beyond-32-bits", "graph.edge-out-of-range", node(child(1 << 32))),
    _graph("slot-state-out-of-range", "graph.edge-out-of-range", node(slot(0, 9))),
    _graph("slot-variable-out-of-range", "graph.edge-out-of-range", node(slot(-5, 0))),
    _graph("last-of-many-edges-out-of-range", "graph.edge-out-of-range", node(child(0) * 50_000 + child(1))),
    _graph("keys-that-are-not-there", "graph.key-absent", node(*(attribute(b"k%d" % n) for n in range(5000))), how="doctor"),
    _graph("cycle-of-two", "graph.key-absent", node(child(1)) + node(child(0), attribute(b"x")), how="doctor"),
    _graph("all-to-all", "graph.key-absent", _all_to_all(120), how="doctor"),
    _graph("chain-of-fifty-thousand", "graph.key-absent", _chain(50_000), how="doctor"),
    _graph("slot-of-itself", "graph.key-absent", node(slot(0, 0), attribute(b"x")), how="doctor"),
    Attack(
        "graph-is-a-number",
        bundle([(GRAPH_KEY, entry(VALUE)), (b"a", entry(VALUE))], VALUE),
        "ckpt",
        "graph.not-a-string",
    ),
    Attack(
        "graph-is-two-strings",
        bundle([(GRAPH_KEY, entry(strings(b"", b"")[0], 2, dtype=7, crc=strings(b"", b"")[1]))], strings(b"", b"")[0]),
        "ckpt",
        "graph.not-a-string",
    ),
]  # fmt: skip
