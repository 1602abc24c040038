"""The bytes of an object graph: nodes from a serialized TrackableObjectGraph and back (formats 6.1).

    TrackableObjectGraph   0a  node ...                                       node 0 is the root
    node                   0a  child      { 08 node id   12 local name }
                           12  attribute  { 0a name   12 full name   1a checkpoint key   20 optional }
                           1a  slot       { 08 variable's node id   12 slot name   18 slot variable's node id }
                           22  saver      { 0a name   12 object name }
                           2a  has values { 08 01 }                           2a 00 is false, absence is unknown
                           a2 06  Python type                                 openckpt's own; others pass over it

The parser is ours, not protobuf's: it is as fast, needs no import of 15 ms, and never holds more than the values it returns
(protobuf takes 36 bytes of memory for every byte of a graph of empty nodes). What is not in the layout that TensorFlow
writes - unknown fields, another order - takes the slow path through `openckpt.formats.wire`.
"""

from __future__ import annotations

from collections.abc import Iterable

from openckpt.errors import CorruptionError, Where
from openckpt.formats.objectnodes import Attribute, Child, Node, RegisteredSaver, SlotVariable
from openckpt.formats.wire import encode_field, encode_varint, iter_fields, parse_varint, text_fields, varint_fields
from openckpt.limits import Limits

_PYTHON_TYPE = 100 << 3 | 2  # far from what TensorFlow may come to use


def parse_nodes(data: bytes, where: Where | str, limits: Limits) -> list[Node]:
    """Parse the nodes, every edge checked; raises as `openckpt.formats.objectgraph.parse_object_graph` says."""
    limits.check("graph_bytes", len(data), where, "the object graph's size")
    pos = 0
    nodes: list[Node] = []
    names: dict[bytes, str] = {}  # the same few names stand at most nodes
    size = 0
    try:
        while pos < len(data):
            if data[pos] != 0x0A:
                tag, pos = parse_varint(data, pos)
                pos = _skip_field(data, tag, pos)
                continue
            length = data[pos + 1]
            pos += 2
            if length > 0x7F:
                length, pos = parse_varint(data, pos - 1)
            if length > len(data) - pos:
                raise ValueError(f"node {len(nodes)} claims {length} bytes, {len(data) - pos} are left")
            # A node's message has at most one item for every two bytes.
            if size + length // 2 >= limits.graph_nodes:
                items = sum(number <= 3 for number, _, _ in iter_fields(data[pos : pos + length]))
                limits.check(
                    "graph_nodes", size + items + 1, where, "the number of nodes and edges of the object graph"
                )
            node = _parse_node(data, pos, pos + length, names)
            size += 1 + len(node[0]) + len(node[1]) + len(node[2])
            nodes.append(node)
            pos += length
    except (ValueError, IndexError) as error:
        reason = "a field runs past the end" if isinstance(error, IndexError) else str(error)
        raise CorruptionError(
            "graph.does-not-parse",
            where,
            f"the object graph does not parse near its byte {pos}: {reason}",
            found=f"{len(data)} bytes",
        ) from None
    if not nodes:
        raise CorruptionError("graph.empty", where, "the object graph has no node")
    _check_edges(nodes, where)
    return nodes


def _parse_node(data: bytes, pos: int, stop: int, names: dict[bytes, str]) -> Node:
    """Parse one node. Children and attributes in TensorFlow's layout are read in line, where the time goes."""
    make = tuple.__new__  # a NamedTuple's own constructor takes twice as long
    children: list[Child] = []
    attributes: list[Attribute] = []
    slots: list[SlotVariable] = []
    saver: dict[int, str] | None = None
    has_values: bool | None = None
    python_type = ""
    while pos < stop:
        tag, length = data[pos], data[pos + 1]
        pos += 2
        if tag & 7 != 2 or tag > 0x7F:
            tag, pos = parse_varint(data, pos - 2)
            if tag >> 32:
                raise ValueError(f"field number {tag >> 3} is not legal")
            if tag & 7 != 2:
                pos = _skip_field(data, tag, pos)
                continue
            length, pos = parse_varint(data, pos)
        elif length > 0x7F:
            length, pos = parse_varint(data, pos - 1)
        end = pos + length
        if end > stop:
            raise ValueError(f"a field claims {length} bytes, {stop - pos} are left")
        if tag == 0x0A:
            start = pos
            node_id = 0
            if length and data[pos] == 0x08:
                node_id = data[pos + 1]
                pos += 2
                if node_id > 0x7F:
                    node_id, pos = parse_varint(data, pos - 1)
            if pos + 1 < end and data[pos] == 0x12 and data[pos + 1] < 0x80 and pos + 2 + data[pos + 1] == end:
                raw = data[pos + 2 : end]
                name = names.get(raw)
                if name is None:
                    name = names[raw] = raw.decode()
                children.append(make(Child, (node_id, name)))
            else:
                children.append(_parse_child(data[start:end]))
        elif tag == 0x12:
            attributes.append(_parse_attribute(data, pos, end, names))
        elif tag == 0x1A:
            slots.append(_parse_slot(data[pos:end]))
        elif tag == 0x22:
            saver = (saver or {}) | text_fields(data[pos:end], (1, 2))
        elif tag == 0x2A:
            if length == 2 and data[pos] == 0x08 and data[pos + 1] < 0x80:
                has_values = data[pos + 1] != 0
            else:  # false is empty
                has_values = varint_fields(data[pos:end]).get(1, bool(has_values)) != 0
        elif tag == _PYTHON_TYPE:
            python_type = data[pos:end].decode()
        elif tag < 0x08:
            raise ValueError("field number 0 is not legal")
        pos = end
    if pos != stop:
        raise ValueError("a field runs past the end of its node")
    registered = None if saver is None else RegisteredSaver(saver.get(1, ""), saver.get(2, ""))
    return make(Node, (tuple(children), tuple(attributes), tuple(slots), registered, has_values, python_type))


def _parse_child(data: bytes) -> Child:
    numbers, texts = varint_fields(data), text_fields(data, (2,))
    return Child(numbers.get(1, 0), texts.get(2, ""))


def _parse_attribute(data: bytes, pos: int, end: int, names: dict[bytes, str]) -> Attribute:
    start = pos
    name = full_name = key = ""
    if pos + 1 < end and data[pos] == 0x0A and data[pos + 1] < 0x80:
        stop = pos + 2 + data[pos + 1]
        raw = data[pos + 2 : stop]
        known = names.get(raw)
        name = known if known is not None else names.setdefault(raw, raw.decode())
        pos = stop
    if pos + 1 < end and data[pos] == 0x12:
        length = data[pos + 1]
        pos += 2
        if length > 0x7F:
            length, pos = parse_varint(data, pos - 1)
        full_name = data[pos : pos + length].decode()
        pos += length
    if pos + 1 < end and data[pos] == 0x1A:
        length = data[pos + 1]
        pos += 2
        if length > 0x7F:
            length, pos = parse_varint(data, pos - 1)
        key = data[pos : pos + length].decode()
        pos += length
    if pos == end:
        return tuple.__new__(Attribute, (name, full_name, key, False))
    numbers, texts = varint_fields(data[start:end]), text_fields(data[start:end], (1, 2, 3))
    return Attribute(texts.get(1, ""), texts.get(2, ""), texts.get(3, ""), numbers.get(4, 0) != 0)


def _parse_slot(data: bytes) -> SlotVariable:
    numbers, texts = varint_fields(data), text_fields(data, (2,))
    return SlotVariable(numbers.get(1, 0), texts.get(2, ""), numbers.get(3, 0))


def _skip_field(data: bytes, tag: int, pos: int) -> int:
    """Return the position after a field whose tag ended at ``pos``."""
    wire = tag & 7
    if tag < 0x08 or tag >> 32:
        raise ValueError(f"field number {tag >> 3} is not legal")
    if wire == 0:
        return parse_varint(data, pos)[1]
    if wire == 2:
        length, pos = parse_varint(data, pos)
        pos += length
    elif wire in (1, 5):
        pos += 8 if wire == 1 else 4
    else:
        raise ValueError(f"field {tag >> 3} has wire type {wire}")
    if pos > len(data):
        raise ValueError(f"field {tag >> 3} runs past the end")
    return pos


def _check_edges(nodes: list[Node], where: Where | str) -> None:
    """Check that every id leads to a node; everything above may then index without asking."""
    count = len(nodes)
    ids = [child[0] for node in nodes for child in node[0]]
    if ids and (max(ids) >= count or min(ids) < 0):
        for node_id, node in enumerate(nodes):
            for child in node.children:
                if not 0 <= child.node_id < count:
                    raise _bad_edge(where, node_id, f"its child {child.local_name[:80]!r}", child.node_id, count)
    for node_id, node in enumerate(nodes):
        for slot in node[2]:
            for target in (slot.original_variable_node_id, slot.slot_variable_node_id):
                if not 0 <= target < count:
                    raise _bad_edge(where, node_id, f"its slot {slot.slot_name[:80]!r}", target, count)


def _bad_edge(where: Where | str, node_id: int, edge: str, target: int, count: int) -> CorruptionError:
    return CorruptionError(
        "graph.edge-out-of-range",
        where,
        f"node {node_id} of the object graph points outside it with {edge}",
        expected=f"0 to {count - 1}",
        found=target,
    )


def encode_nodes(nodes: Iterable[Node]) -> bytes:
    """Return the message that holds ``nodes``, byte for byte as TensorFlow writes it.

    Written out for speed: the same few names stand at most nodes, and nearly every length fits one byte.
    """
    parts: list[bytes] = []
    names: dict[tuple[int, str], bytes] = {}
    for children, attributes, slots, saver, has_values, python_type in nodes:
        fields: list[bytes] = []
        for node_id, local_name in children:
            named = names.get((2, local_name))
            if named is None:
                named = names[2, local_name] = _text(2, local_name)
            body = (b"\x08" + encode_varint(node_id) if node_id else b"") + named
            fields += (b"\n", _LENGTHS[len(body)] if len(body) < 128 else encode_varint(len(body)), body)
        for name, full_name, key, optional in attributes:
            named = names.get((1, name))
            if named is None:
                named = names[1, name] = _text(1, name)
            body = named + _text(2, full_name) + _text(3, key) + _number(4, optional)
            fields += (b"\x12", _LENGTHS[len(body)] if len(body) < 128 else encode_varint(len(body)), body)
        for variable, slot_name, slot in slots:
            fields.append(encode_field(3, _number(1, variable) + _text(2, slot_name) + _number(3, slot)))
        if saver is not None:
            fields.append(encode_field(4, _text(1, saver.name) + _text(2, saver.object_name)))
        if has_values is not None:
            fields.append(b"\x2a\x02\x08\x01" if has_values else b"\x2a\x00")
        if python_type:
            fields.append(encode_field(_PYTHON_TYPE >> 3, python_type.encode()))
        body = b"".join(fields)
        parts += (b"\n", _LENGTHS[len(body)] if len(body) < 128 else encode_varint(len(body)), body)
    return b"".join(parts)


_LENGTHS = [bytes((length,)) for length in range(128)]


def _number(number: int, value: int) -> bytes:
    return encode_field(number, int(value)) if value else b""


def _text(number: int, value: str) -> bytes:
    if not value:
        return b""
    data = value.encode()
    size = _LENGTHS[len(data)] if len(data) < 128 else encode_varint(len(data))
    return _LENGTHS[number << 3 | 2] + size + data
