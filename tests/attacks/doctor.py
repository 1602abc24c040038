"""Directories made to mislead the doctor or to drown it: manifests that lead away, and far too much of everything."""

from __future__ import annotations

from attacks.attack import Attack
from attacks.craft import bundle, entry, floats, header

DATA = floats(1.0, 2.0)
GOOD = [(b"w", entry(DATA, 2))]


def _manifest(*lines: str) -> bytes:
    return "".join(f"{line}\n" for line in lines).encode()


def _checkpoint(name: str, data: bytes = DATA) -> dict[str, bytes]:
    """A whole checkpoint under another prefix than ``ckpt``."""
    return {f"{name}{file.removeprefix('ckpt')}": content for file, content in bundle(GOOD, data).items()}


def _ten_thousand_leftovers() -> dict[str, bytes]:
    return {f"run/ckpt-{number}.index.tempstate{number}": b"" for number in range(10_000)} | {
        f"run/{name}": data for name, data in _checkpoint("ckpt-1").items()
    }


def _hundred_thousand_entries() -> dict[str, bytes]:
    lines = [f'all_model_checkpoint_paths: "ckpt-{number}"' for number in range(100_000)]
    return {"run/checkpoint": _manifest('model_checkpoint_path: "ckpt-1"', *lines)} | {
        f"run/{name}": data for name, data in _checkpoint("ckpt-1").items()
    }


def _entries_in_other_places() -> dict[str, bytes]:
    lines = [f'all_model_checkpoint_paths: "../../elsewhere{number}/ckpt"' for number in range(20_000)]
    return {"run/checkpoint": _manifest('model_checkpoint_path: "ckpt-1"', *lines)} | {
        f"run/{name}": data for name, data in _checkpoint("ckpt-1").items()
    }


def _five_thousand_stale_shards() -> dict[str, bytes]:
    return {f"ckpt.data-{number:05d}-of-05001": b"" for number in range(5000)} | dict(bundle(GOOD, DATA))


def _ten_thousand_dead_saves() -> dict[str, bytes]:
    """Each with data of another count beside a whole checkpoint, and a record that is no record."""
    files = {f"run/ckpt-{number}.openckpt-lock": b"[" * 5000 for number in range(10_000)}
    stale = {f"run/ckpt-1.data-{number:05d}-of-05001": b"" for number in range(5000)}
    return files | stale | {f"run/{name}": data for name, data in _checkpoint("ckpt-1").items()}


CASES = [
    Attack(
        "manifest-names-a-file-of-the-system",
        {"run/checkpoint": _manifest('model_checkpoint_path: "/proc/self/environ"')},
        "run",
        "run.elsewhere",
        how="doctor",
    ),
    Attack(
        "manifest-climbs-out",
        {"run/checkpoint": _manifest('model_checkpoint_path: "../../../../../../../../../../no/such/ckpt"')},
        "run",
        "run.newest-missing",
        how="doctor",
    ),
    Attack(
        "manifest-names-itself",
        {"run/checkpoint": _manifest('model_checkpoint_path: "checkpoint"')},
        "run",
        "run.newest-missing",
        how="doctor",
    ),
    Attack(
        "manifest-names-its-directory",
        {"run/checkpoint": _manifest('model_checkpoint_path: "."')}
        | {f"run/{n}": d for n, d in _checkpoint("c-1").items()},
        "run",
        "run.newest-missing",
        how="doctor",
    ),
    Attack(
        "manifest-names-escape-sequences",
        {"run/checkpoint": _manifest(r'model_checkpoint_path: "\033[2Jckpt\n\r\t\177"')},
        "run",
        "run.newest-missing",
        how="doctor",
    ),
    Attack(
        "manifest-of-a-hundred-thousand-entries", _hundred_thousand_entries, "run", "run.older-missing", how="doctor"
    ),
    Attack("manifest-of-places-far-away", _entries_in_other_places, "run", "run.older-missing", how="doctor"),
    Attack("ten-thousand-leftovers", _ten_thousand_leftovers, "run", "run.leftover-file", how="doctor"),
    Attack("ten-thousand-dead-saves", _ten_thousand_dead_saves, "run", "run.broken-off", how="doctor"),
    Attack(
        "lock-that-claims-a-million-shards",
        {
            "ckpt.openckpt-lock": b'{"writes": 999999999, "replaces": [' + b"1," * 2000 + b"1]}\n",
            "ckpt.data-00000-of-00001": DATA,
        },
        "ckpt",
        "run.index-missing",
        how="doctor",
    ),
    Attack("five-thousand-stale-shards", _five_thousand_stale_shards, "ckpt", "run.stale-shards", how="doctor"),
    Attack(
        "header-asks-for-every-shard",
        lambda: dict(bundle(GOOD, DATA, head=header(99_999))),
        "ckpt",
        "bundle.shard-count",
        how="doctor",
    ),
    Attack("name-of-a-hundred-exclamation-marks", {"a": b"x"}, "a" + "!" * 100, "path.not-an-archive", how="doctor"),
    Attack(
        "archive-that-is-a-pickle",
        {"model.tar.gz": b"\x80\x04cos\nsystem\n."},
        "model.tar.gz",
        "detect.pickle",
        how="doctor",
    ),
    Attack(
        "directory-called-index",
        {"ckpt.index/x": b"", "ckpt.data-00000-of-00001": DATA},
        "ckpt",
        "run.index-unreadable",
        how="doctor",
    ),
    Attack(
        "zeros-under-every-name",
        {"ckpt.index": bytes(4096), "ckpt.data-00000-of-00001": bytes(64)},
        "ckpt",
        "detect.zeros",
        how="doctor",
    ),
]
