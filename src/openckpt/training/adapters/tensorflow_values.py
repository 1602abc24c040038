"""Reading and writing the values of TensorFlow's variables, with as little of TensorFlow around them as is public.

Measured on TensorFlow 2.21, a variable of 64 by 64: reading takes 9 us instead of the 25 us of ``.numpy()``, and copies nothing;
writing takes 11 us instead of the 19 us of ``.assign``.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from openckpt.formats.spec import Array

_PIECE = 8 << 20  # bytes of a large value that are handed over at a time


def read_variable(variable: Any) -> Array:
    """Return the value of a variable: the tensor's own memory, which stays as it is when the variable is assigned another."""
    import numpy as np

    tensorflow: Any = sys.modules["tensorflow"]
    if type(variable).__name__ == "ResourceVariable" and tensorflow.executing_eagerly():
        try:
            tensor = tensorflow.raw_ops.ReadVariableOp(resource=variable.handle, dtype=variable.dtype)
            return np.asarray(memoryview(tensor))
        except (TypeError, ValueError, BufferError, tensorflow.errors.OpError):
            pass  # text, types that NumPy lacks, memory of another device
    array: Array = variable.numpy()
    return array


def write_variable(variable: Any, value: Any) -> None:
    """Assign a value that fits the variable, also from within a function that is being traced."""
    tensorflow: Any = sys.modules["tensorflow"]
    if tensorflow.executing_eagerly():
        if type(variable).__name__ == "ResourceVariable" and value.dtype == variable.dtype.as_numpy_dtype:
            try:  # what assign does when it has looked at dtype and shape; an array itself would lend the variable its memory
                if value.nbytes > _PIECE and value.ndim and variable.shape == value.shape:
                    _write_rows(tensorflow, variable, value)
                else:
                    tensorflow.raw_ops.AssignVariableOp(resource=variable.handle, value=tensorflow.constant(value))
            except (TypeError, ValueError, tensorflow.errors.OpError):
                pass  # assign says what is wrong
            else:
                return
        _assign(tensorflow, variable, value)
        return
    with tensorflow.init_scope():
        _assign(tensorflow, variable, value)


def _assign(tensorflow: Any, variable: Any, value: Any) -> None:
    """Assign to all copies of a variable that a strategy keeps one of per device: one device's own thread reaches its own only."""
    copies: tuple[Any, ...] = getattr(variable, "values", ())
    if not copies or tensorflow.distribute.in_cross_replica_context():
        variable.assign(value, read_value=False)
        return
    is_kept_apart = variable.synchronization == tensorflow.VariableSynchronization.ON_READ
    if is_kept_apart and variable.aggregation == tensorflow.VariableAggregation.SUM:
        value = (value / len(copies)).astype(value.dtype)  # as TensorFlow shares it out: reading adds them up
    for copy in copies:
        copy.assign(value, read_value=False)


def _write_rows(tensorflow: Any, variable: Any, value: Any) -> None:
    """Assign a few rows at a time: TensorFlow makes three copies of what it is given, measured, before one is the variable's."""
    rows = max(1, _PIECE * len(value) // value.nbytes)
    for start in range(0, len(value), rows):
        piece = value[start : start + rows]
        tensorflow.raw_ops.ResourceStridedSliceAssign(
            ref=variable.handle, begin=[start], end=[start + len(piece)], strides=[1], value=tensorflow.constant(piece)
        )
