"""What `interop/test_tensorflow_objects.py` runs in a process of its own, because devices are made before anything else.

``python tensorflow_replicas.py DIRECTORY``: variables that a strategy makes on two devices, within the devices' threads, get their
stored values on both. Prints them as JSON.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import tensorflow as tf

from openckpt.training import Checkpoint


class Late(tf.Module):
    """Makes its variables when it is called."""

    def __call__(self) -> Any:
        if not hasattr(self, "w"):
            self.w = tf.Variable([0.0, 0.0])
            kept = tf.VariableSynchronization.ON_READ
            self.total = tf.Variable(0.0, trainable=False, synchronization=kept, aggregation=tf.VariableAggregation.SUM)
        return self.w * 1.0


def main(directory: Path) -> None:
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    saved, late = Late(), Late()
    saved()
    saved.w.assign([3.0, 4.0])
    saved.total.assign(6.0)
    path = Checkpoint(saved).write(directory / "ckpt")
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    status = Checkpoint(late).read(path, partial=True)
    seen = strategy.run(late)
    status.assert_consumed()
    copies = [value.numpy().tolist() for kept in (late.w, late.total) for value in kept.values]
    print(json.dumps({"copies": copies, "seen": [one.numpy().tolist() for one in seen.values]}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
