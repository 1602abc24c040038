"""Variant tensors of live objects - the state of dataset iterators - as the bytes that a checkpoint holds, and back (formats 2.8).

TensorFlow shows a variant's bytes only inside a whole serialized tensor:

    TensorProto   1 dtype = 21 (variant)   2 shape   4 content: varint length * n | VariantTensorDataProto * n
"""

from __future__ import annotations

import math
import sys
from typing import TYPE_CHECKING, Any

from openckpt.formats.wire import encode_varint, parse_varint
from openckpt.writing import Variant

if TYPE_CHECKING:
    from openckpt.formats.spec import Array

_MESSAGES = "tensorflow.core.framework.tensor_pb2"  # whoever has such a tensor has imported it


def variants_of(tensor: Any) -> Array:
    """Return the elements of a variant tensor as an object array of `openckpt.Variant`."""
    import numpy as np

    tensorflow: Any = sys.modules["tensorflow"]
    message = sys.modules[_MESSAGES].TensorProto.FromString(tensorflow.io.serialize_tensor(tensor).numpy())
    shape = tuple(dim.size for dim in message.tensor_shape.dim)
    content = memoryview(message.tensor_content)
    sizes, position = [], 0
    for _ in range(math.prod(shape)):
        size, position = parse_varint(content, position)
        sizes.append(size)
    array = np.empty(len(sizes), object)
    for number, size in enumerate(sizes):
        array[number] = Variant(bytes(content[position : position + size]))
        position += size
    return array.reshape(shape)


def tensor_of(elements: Array) -> Any:
    """Return the variant tensor of elements as a checkpoint holds them: bytes."""
    tensorflow: Any = sys.modules["tensorflow"]
    message = sys.modules[_MESSAGES].TensorProto(dtype=tensorflow.variant.as_datatype_enum)
    for size in elements.shape:
        message.tensor_shape.dim.add(size=size)
    items: list[bytes] = elements.ravel().tolist()
    message.tensor_content = b"".join((*(encode_varint(len(item)) for item in items), *items))
    return tensorflow.io.parse_tensor(message.SerializeToString(), tensorflow.variant)
