"""What the interop tests share: TensorFlow writes, openckpt reads, and both must say the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import openckpt


def save_v2(tf: Any, prefix: Path, tensors: Mapping[str, Any]) -> str:
    """Write a V2 checkpoint with the bare op; returns the prefix."""
    names = list(tensors)
    values = [tensors[name] if tf.is_tensor(tensors[name]) else tf.constant(tensors[name]) for name in names]
    tf.raw_ops.SaveV2(prefix=str(prefix), tensor_names=names, shape_and_slices=[""] * len(names), tensors=values)
    return str(prefix)


def save_slices(tf: Any, prefix: Path, pieces: Sequence[tuple[str, str, Any]]) -> str:
    """Write ``(name, shape and slice, piece)`` triples with the bare op; returns the prefix."""
    names, slices, values = zip(*pieces, strict=True)
    tf.raw_ops.SaveV2(prefix=str(prefix), tensor_names=names, shape_and_slices=slices, tensors=list(values))
    return str(prefix)


def assert_same_array(read: np.ndarray, expected: np.ndarray) -> None:
    """Equal in dtype, shape and every bit (NaNs and signed zeros included)."""
    assert read.shape == expected.shape
    if expected.dtype == object:
        assert read.dtype == object
        assert read.ravel().tolist() == expected.ravel().tolist()
        return
    assert read.dtype == expected.dtype
    assert read.flags.c_contiguous
    assert read.tobytes() == expected.tobytes()


def assert_reads_equal(path: str | Path, expected: Mapping[str, np.ndarray]) -> None:
    """openckpt reads exactly these keys and values, one by one, all at once and into given arrays."""
    with openckpt.open(path) as ckpt:
        assert sorted(ckpt) == sorted(expected)
        for key, value in expected.items():
            assert ckpt.specs[key].shape == value.shape
            assert_same_array(ckpt[key], value)
        for key, value in ckpt.read_many(list(expected)).items():
            assert_same_array(value, expected[key])
        out = {key: np.empty(value.shape, value.dtype) for key, value in expected.items() if value.dtype != object}
        for key, value in ckpt.read_many(list(out), out=out, threads=2).items():
            assert value is out[key]
            assert_same_array(value, expected[key])


def assert_reads_as_tensorflow(tf: Any, prefix: str) -> dict[str, np.ndarray]:
    """openckpt reads every key of a TensorFlow checkpoint as `tf.train.load_checkpoint` does; returns what was read."""
    reader = tf.train.load_checkpoint(prefix)
    shapes, dtypes = reader.get_variable_to_shape_map(), reader.get_variable_to_dtype_map()
    with openckpt.open(prefix) as ckpt:
        assert sorted(ckpt) == sorted(shapes)
        read = {}
        for key in ckpt:
            assert ckpt.specs[key].dtype == dtypes[key].name
            assert list(ckpt.specs[key].shape) == shapes[key]
            read[key] = ckpt[key]
            if dtypes[key] != tf.variant:  # TensorFlow's Python reader cannot return one
                expected = reader.get_tensor(key)  # bytes for a scalar string: numpy would strip its last zeros
                expected = np.array(expected, object) if dtypes[key] == tf.string else np.asarray(expected)
                assert_same_array(read[key], expected)
    return read


def assert_sound(path: str | Path) -> None:
    """The doctor has neither an error nor a warning for what TensorFlow wrote."""
    report = openckpt.diagnose(path)
    findings = [*report.findings, *(finding for checkpoint in report.checkpoints for finding in checkpoint.findings)]
    assert [
        (finding.severity, finding.code, finding.message) for finding in findings if finding.severity != "note"
    ] == []
    assert report.valid
