"""What every test may use: the corpus, stock TensorFlow, and loud skips where either is absent.

A test that needs TensorFlow carries the marker ``interop`` and asks for the fixture ``tf``; one that needs the development
corpus carries ``corpus`` and asks for the fixture ``corpus``. Where what they need is not there they are skipped, and the end
of the run says in a banner how many and what to do. ``OPENCKPT_REQUIRE=interop,corpus`` turns the absence into failures.
"""

from __future__ import annotations

import importlib
import os
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest

from oracle import CORPUS, NEEDS, absent

if TYPE_CHECKING:
    from openckpt.storage.writable import WritableStore
    from openckpt.testing import OrderFS

# Before the first import of TensorFlow, wherever that happens: no log lines, no GPU, the same kernels on every machine.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")


def _required() -> set[str]:
    required = {word.strip() for word in os.environ.get("OPENCKPT_REQUIRE", "").split(",")} - {""}
    unknown = required - set(NEEDS)
    if unknown:
        raise pytest.UsageError(f"OPENCKPT_REQUIRE names {sorted(unknown)}; it knows {sorted(NEEDS)}")
    return required


def pytest_configure(config: pytest.Config) -> None:
    """Refuse a misspelt OPENCKPT_REQUIRE before anything runs."""
    _required()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep the interop tests of one module in one worker, and TensorFlow's own warnings from failing them."""
    for item in items:
        if item.get_closest_marker("interop") is None:
            continue
        # A module's checkpoints are written once, by a fixture, and TensorFlow takes three seconds and 600 MiB to import.
        if item.get_closest_marker("xdist_group") is None:
            item.add_marker(pytest.mark.xdist_group(f"interop-{item.path.stem}"))
        # Our own warnings stay errors; those of TensorFlow, Keras and what they call are not ours to mend.
        for kind in ("DeprecationWarning", "FutureWarning", "UserWarning", "RuntimeWarning", "ResourceWarning"):
            item.add_marker(pytest.mark.filterwarnings(rf"ignore::{kind}:(?!openckpt)"))


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip, or fail where it is required, what this machine cannot run."""
    for need, (why, _) in NEEDS.items():
        if item.get_closest_marker(need) is not None and need in absent():
            if need in _required():
                pytest.fail(f"{need} is required, but {why}", pytrace=False)
            pytest.skip(f"{need}: {why}")


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Say what was proved, in figures, and loudly what was not, and how to prove it."""
    proofs = [
        line
        for report in terminalreporter.stats.get("passed", [])
        for name, line in report.user_properties
        if name == "proof"
    ]
    if proofs:
        terminalreporter.section("WHAT WAS PROVED")
        for line in proofs:
            terminalreporter.line(line)
    for need, (why, remedy) in NEEDS.items():
        skipped = [
            report
            for report in terminalreporter.stats.get("skipped", [])
            if isinstance(report.longrepr, tuple) and report.longrepr[2].startswith(f"Skipped: {need}: ")
        ]
        if skipped:
            terminalreporter.section(f"NOT PROVED: {need}", sep="!", red=True, bold=True)
            terminalreporter.line(f"{len(skipped)} tests were SKIPPED because {why}.", red=True, bold=True)
            terminalreporter.line(f"To run them: {remedy}", red=True, bold=True)
            terminalreporter.line(f"To make their absence a failure: OPENCKPT_REQUIRE={need}")


def _skip_without(need: str) -> None:
    if need in absent():
        pytest.skip(f"{need}: {NEEDS[need][0]}")


@pytest.fixture(scope="session")
def corpus() -> Path:
    """The directory of the development corpus."""
    _skip_without("corpus")
    return CORPUS


def _import_quietly(name: str) -> ModuleType:
    _skip_without("interop")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return importlib.import_module(name)


@pytest.fixture(scope="session")
def tf() -> Any:
    """Stock TensorFlow, imported once per worker, silent."""
    tensorflow = _import_quietly("tensorflow")
    tensorflow.get_logger().setLevel("ERROR")
    _import_quietly("absl.logging").set_verbosity("fatal")  # type: ignore[attr-defined]
    return tensorflow


@pytest.fixture(scope="session")
def keras_module(keras: Any) -> Callable[[str], Any]:
    """Imports a module of ``tests/`` that imports Keras, silently, once the backend is chosen."""
    return _import_quietly


@pytest.fixture(scope="session")
def tf_keras(tf: Any) -> Any:
    """Keras 2 on TensorFlow."""
    return _import_quietly("tf_keras")


@pytest.fixture(scope="session")
def keras(tf: Any) -> Any:
    """Keras 3."""
    return _import_quietly("keras")


@pytest.fixture
def ordered_store() -> Iterator[OrderFS]:
    """The local disk under the rules of `openckpt.testing.OrderFS`, for one save or several, all durable and none that fails."""
    from openckpt.storage.disk import DISK
    from openckpt.testing import OrderFS

    store = OrderFS(DISK)
    yield store
    store.check_end()


@pytest.fixture(scope="session", autouse=True)
def _every_save_is_watched() -> Iterator[None]:
    """Put every commit to the local disk, in every test, under the rules of `openckpt.testing.OrderFS`."""
    from openckpt.storage.commit import Commit
    from openckpt.storage.disk import DISK
    from openckpt.testing.order import OrderFS

    class Watch(OrderFS):
        """Of one commit; a test that brings an `OrderFS` of its own says itself when its saves are over."""

    begin, end = Commit.__init__, Commit.__exit__

    def watched_begin(self: Commit, store: WritableStore, *arguments: Any, **options: Any) -> None:
        if store is DISK:
            store = Watch(store, durability=options.get("durability", "power-loss"))
        begin(self, store, *arguments, **options)

    def watched_end(self: Commit, kind: Any, error: BaseException | None, trace: Any) -> None:
        end(self, kind, error, trace)
        if isinstance(self._store, Watch) and self._process == os.getpid():
            self._store.check() if error is not None else self._store.check_end()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Commit, "__init__", watched_begin)
        patch.setattr(Commit, "__exit__", watched_end)
        yield


def pytest_make_parametrize_id(config: pytest.Config, val: object, argname: str) -> str | None:
    """Long bytes are called by their argument: a gzip header holds the time, and workers must agree on every name."""
    return argname if isinstance(val, bytes) and len(val) > 12 else None
