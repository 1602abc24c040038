"""PyTorch files are named by content, refused with a command, and never unpickled."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from containers import tarred, zipped
from openckpt.formats.torch_archive import describe_torch, refuse_torch
from openckpt.storage.memory import MemorySource


class Bomb:
    """A pickle that raises when anybody loads it."""

    def __reduce__(self) -> object:
        return exec, ("raise AssertionError('unpickled')",)


def torch_zip() -> bytes:
    return zipped({"model/data.pkl": pickle.dumps(Bomb()), "model/data/0": bytes(16), "model/version": b"3\n"})


def torch_pickles() -> bytes:
    return b"".join(pickle.dumps(part, 2) for part in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}, Bomb()))


def torch_tar() -> bytes:
    return tarred(dict.fromkeys(("sys_info", "pickle", "tensors", "storages"), pickle.dumps(Bomb())), "")


KINDS = {"zip": torch_zip, "pickle": torch_pickles, "tar": torch_tar}


@pytest.mark.parametrize("kind", KINDS)
def test_each_generation_is_named_and_refused(kind: str) -> None:
    """The refusal says what it is and gives the command that converts it, quoted for a shell."""
    source = MemorySource("my model.pt", KINDS[kind]())

    found = describe_torch(source)

    assert found is not None
    assert found.kind == kind
    error = refuse_torch(source, found)
    assert error.code == "detect.torch"
    assert error.fix is not None
    assert "weights_only=True" in error.fix
    assert error.fix.endswith("'my model.pt' 'my model.safetensors'")


@pytest.mark.parametrize("data", [b"", b"PK\3\4", pickle.dumps([1, 2]), b"\x89HDF\r\n\x1a\n", bytes(1024)])
def test_other_files_are_not_pytorch(data: bytes) -> None:
    """A plain pickle is a danger too, but not PyTorch's; `detect` names it."""
    assert describe_torch(MemorySource("x", data)) is None


def test_the_command_is_a_program(tmp_path: Path) -> None:
    """It compiles, and takes the two paths from its arguments."""
    import ast
    import shlex

    found = describe_torch(MemorySource("x.pt", torch_zip()))
    assert found is not None
    words = shlex.split(refuse_torch(MemorySource("x.pt", torch_zip()), found).fix or "")

    ast.parse(words[2])
    assert (words[:2], words[3:]) == (["python", "-c"], ["x.pt", "x.safetensors"])
