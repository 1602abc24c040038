"""TensorFlow's messages rebuilt from their field numbers with stock protobuf, as independent readers for property tests.

They live in a descriptor pool of their own, so TensorFlow may be in the process or absent.
"""

from __future__ import annotations

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

DOUBLE, INT32, BOOL, STRING = 1, 5, 8, 9
MESSAGES = {
    "CheckpointState": "model_checkpoint_path=1 string, all_model_checkpoint_paths=2 string*, "
    "all_model_checkpoint_timestamps=3 double*, last_preserved_timestamp=4 double",
    "TrackableObjectGraph": "nodes=1 Node*",
    "Node": "children=1 Child*, attributes=2 Attribute*, slot_variables=3 Slot*, registered_saver=4 Saver, "
    "has_checkpoint_values=5 BoolValue",
    "Child": "node_id=1 int32, local_name=2 string",
    "Attribute": "name=1 string, full_name=2 string, checkpoint_key=3 string, optional_restore=4 bool",
    "Slot": "original_variable_node_id=1 int32, slot_name=2 string, slot_variable_node_id=3 int32",
    "Saver": "name=1 string, object_name=2 string",
    "BoolValue": "value=1 bool",
}
_SCALARS = {"double": DOUBLE, "int32": INT32, "bool": BOOL, "string": STRING}


def _build():
    file = descriptor_pb2.FileDescriptorProto(name="mirrors.proto", package="mirrors", syntax="proto3")
    for message, fields in MESSAGES.items():
        described = file.message_type.add(name=message)
        for field in fields.split(", "):
            numbered, kind = field.split()
            name, number = numbered.split("=")
            repeated, kind = kind.endswith("*"), kind.rstrip("*")
            added = described.field.add(name=name, number=int(number), label=3 if repeated else 1)
            added.type = _SCALARS.get(kind, 11)
            if kind not in _SCALARS:
                added.type_name = f".mirrors.{kind}"
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    return {name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"mirrors.{name}")) for name in MESSAGES}


MIRRORS = _build()
