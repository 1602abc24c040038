"""The nodes of an object graph as plain values (formats 6.1); `openckpt.formats.objectgraph` makes a graph of them."""

from __future__ import annotations

from typing import NamedTuple

MADE_TYPES = ("value", "list", "tuple", "dict", "int-dict")
"""of `Node.python_type`: what a restore makes where the program does not have it"""


class Child(NamedTuple):
    """An edge: the object has ``node_id`` under the name ``local_name``."""

    node_id: int
    local_name: str


class Attribute(NamedTuple):
    """A value of a node, stored as the tensor ``checkpoint_key`` (or several tensors whose keys start so, formats 6.2)."""

    name: str
    full_name: str
    checkpoint_key: str
    optional_restore: bool = False
    """set by old writers on what a restore may leave out"""

    @property
    def is_optional(self) -> bool:
        """Whether a restore does without it: marked so, or the JSON description of an old Keras layer."""
        return self.optional_restore or self.name == "OBJECT_CONFIG_JSON"


class SlotVariable(NamedTuple):
    """A record of an optimizer: its state ``slot_name`` for a variable is the node ``slot_variable_node_id``."""

    original_variable_node_id: int
    slot_name: str
    slot_variable_node_id: int


class RegisteredSaver(NamedTuple):
    """The custom saver that wrote a node."""

    name: str
    object_name: str


class Node(NamedTuple):
    """One object of the saved program. A tuple, because a graph may have a million of them."""

    children: tuple[Child, ...] = ()
    attributes: tuple[Attribute, ...] = ()
    slot_variables: tuple[SlotVariable, ...] = ()
    registered_saver: RegisteredSaver | None = None
    has_checkpoint_values: bool | None = None
    """whether this node or one below it holds values; None in graphs of old writers, which do not say"""
    python_type: str = ""
    """what openckpt saved: "value" of a number, text or None; "list", "tuple", "dict" or "int-dict" of nothing but such values;
    "other-dict" or "other-int-dict" of an OrderedDict or defaultdict of them; "" of everything else"""

    @property
    def is_plain(self) -> bool:
        """Whether a restore makes this where the program does not have it."""
        return self.python_type in MADE_TYPES
