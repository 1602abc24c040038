"""A process that imports every library of the race and then runs jobs, one per line of standard input."""

from __future__ import annotations

import json
import os
import sys
import traceback


def main() -> None:
    """Answer ``[job, arguments]`` with ``{"value": ...}`` or ``{"error": ...}`` until standard input ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a library prints is not an answer
    # Imported by every side, whether it needs them or not: imports change the heap, the allocator and the threads.
    import async_jobs
    import convert_jobs
    import delta_jobs
    import jobs
    import numpy  # noqa: F401
    import safetensors.numpy  # noqa: F401
    import save_jobs
    import tensorflow  # noqa: F401
    import torch  # noqa: F401
    import train_jobs

    import openckpt  # noqa: F401

    modules = (jobs, save_jobs, convert_jobs, train_jobs, async_jobs, delta_jobs)
    known = {name: value for module in modules for name, value in vars(module).items()}
    for line in sys.stdin:
        name, arguments = json.loads(line)
        try:
            answer = {"value": known[name](**arguments)}
        except Exception:
            answer = {"error": traceback.format_exc()}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
