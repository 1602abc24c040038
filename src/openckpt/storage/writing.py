"""Writing whole files, for what openckpt makes that is no checkpoint: the demo's folder, ``show --npy``.

A file appears under its name complete or not at all: it is written under a temporary name beside it and renamed. This is not
the durable commit of a checkpoint; nothing is synced.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import BinaryIO


@contextmanager
def replace_file(path: str) -> Iterator[BinaryIO]:
    """Open a new file that takes the place of ``path`` when the block ends; an error in the block leaves ``path`` as it was.

    Raises:
        OSError: as the system says; also where ``path`` is a directory.
    """
    if os.path.isdir(path):
        raise IsADirectoryError(errno.EISDIR, "Is a directory", path)
    temporary = f"{path}.{os.getpid()}.tmp"
    # Opened before the block: a file that already has this name is not ours to remove.
    file = open(temporary, "xb")  # noqa: SIM115
    try:
        with file:
            yield file
        os.replace(temporary, path)
    except BaseException:
        try:
            os.remove(temporary)
        except OSError:
            pass
        raise


def write_folder(directory: str, files: Mapping[str, bytes]) -> None:
    """Write files into a directory, making it and the folders in the names ("/" between them) as needed.

    Raises:
        ValueError: a name leads out of the directory.
        OSError: as the system says.
    """
    for name in files:
        if name.startswith("/") or any(part in ("", ".", "..") for part in name.split("/")):
            raise ValueError(f"not a name inside a folder: {name!r}")
    os.makedirs(directory, exist_ok=True)
    for name, data in files.items():
        path = os.path.join(directory, *name.split("/"))
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with replace_file(path) as file:
            file.write(data)
