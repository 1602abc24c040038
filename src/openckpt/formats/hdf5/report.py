"""What was found in an HDF5 file, as plain values that travel from the child process as JSON."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from openckpt.errors import CheckpointError, CorruptionError, LimitError, UnsafeError, UnsupportedError, Where
from openckpt.findings import Finding, make_finding
from openckpt.formats.carried import Carried
from openckpt.formats.hdf5.types import Text

Layout = Literal["keras-legacy-weights", "keras-legacy-model", "keras3-weights", "plain"]
Storage = Literal["contiguous", "chunked", "compact", "none"]


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong with the file: the code and the words of an error and of a finding alike."""

    code: str
    key: str | None
    message: str
    found: str | None = None
    expected: str | None = None
    offset: int | None = None

    def finding(self, path: str) -> Finding:
        """Return it as a finding about the file ``path``."""
        return make_finding(
            self.code, Where(path, self.key, self.offset), self.message, found=self.found, expected=self.expected
        )

    def error(self, path: str) -> CheckpointError:
        """Return it as the error of the same code."""
        kind = _KINDS.get(self.code, CorruptionError)
        where = Where(path, self.key, self.offset)
        return kind(self.code, where, self.message, found=self.found, expected=self.expected)


_KINDS: dict[str, type[CheckpointError]] = {
    "hdf5.external-link": UnsafeError,
    "hdf5.soft-link": UnsafeError,
    "hdf5.external-storage": UnsafeError,
    "hdf5.virtual-dataset": UnsafeError,
    "hdf5.filter": UnsupportedError,
    "hdf5.version": UnsupportedError,
    "hdf5.null-dataspace": UnsupportedError,
    "spec.unknown-dtype": UnsupportedError,
    "hdf5.layout": UnsupportedError,
    "hdf5.carried-version": UnsupportedError,
    "hdf5.declared-size": LimitError,
    "limits.exceeded": LimitError,
}


@dataclass(frozen=True, slots=True)
class Dataset:
    """One dataset.

    Attributes:
        path: full path without the leading slash; the key.
        dtype: TensorFlow's name or ``unknown-...``.
        shape: sizes in elements; None for a dataset without a dataspace and for what could not be looked at.
        nbytes: bytes stored in the file; None where unknown.
        storage: how the bytes lie; "none" where nothing is stored and every element is the fill value.
        offset: first byte in the file, for contiguous storage.
        itemsize: bytes per element in the file.
        big_endian: whether the stored numbers are big-endian.
        text: how strings lie, for dtype "string".
        refusal: why it cannot be read, or None.
        carried: key, type and shape in a file that openckpt wrote; the fields above say how the elements lie.
    """

    path: str
    dtype: str
    shape: tuple[int, ...] | None
    nbytes: int | None
    storage: Storage
    offset: int | None = None
    itemsize: int = 0
    big_endian: bool = False
    text: Text | None = None
    refusal: Problem | None = None
    carried: Carried | None = None

    @property
    def key(self) -> str:
        """The key: the path, unless openckpt wrote the file."""
        return self.path if self.carried is None else self.carried.key


@dataclass(frozen=True, slots=True)
class KerasAttributes:
    """What Keras wrote about the file, as plain values.

    Attributes:
        layout: which writer's scheme this is.
        keras_version: e.g. "2.2.4"; None in files that do not say.
        backend: e.g. "tensorflow".
        layer_names: names of the layers in model order (legacy files).
        weight_names: layer -> names of its weights in save order, layers without weights left out (legacy files).
        optimizer_weight_names: names below "optimizer_weights" in save order (legacy files).
        weights_group: group above the layers: "model_weights" in a whole legacy model, "" elsewhere.
        has_model_config: the file holds the model's configuration as JSON.
        has_training_config: the file holds loss, metrics and optimizer settings.
        class_name: class of the model, from the configuration.
        lambda_layers: names of Lambda layers, whose code Keras would run on loading.
        object_names: group -> layer name, from the ``name`` attributes of Keras 3.
    """

    layout: Layout = "plain"
    keras_version: str | None = None
    backend: str | None = None
    layer_names: tuple[str, ...] = ()
    weight_names: dict[str, tuple[str, ...]] = field(default_factory=dict)
    optimizer_weight_names: tuple[str, ...] = ()
    weights_group: str = ""
    has_model_config: bool = False
    has_training_config: bool = False
    class_name: str | None = None
    lambda_layers: tuple[str, ...] = ()
    object_names: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class HDF5Report:
    """Everything that one look at an HDF5 file told.

    Attributes:
        path: the file as shown to people.
        datasets: all datasets, and everything else that has a name but cannot be read, in reading order.
        attributes: what Keras wrote about the file.
        problems: what is wrong, or odd.
        fatal: the problem that kept the file from being opened at all, or None; also in ``problems``.
    """

    path: str
    datasets: tuple[Dataset, ...] = ()
    attributes: KerasAttributes = KerasAttributes()
    problems: tuple[Problem, ...] = ()
    fatal: Problem | None = None

    @property
    def findings(self) -> tuple[Finding, ...]:
        """The problems as findings of the doctor."""
        return tuple(problem.finding(self.path) for problem in self.problems)

    def to_json(self) -> dict[str, Any]:
        """Return the report as JSON values."""
        return asdict(self)


def failed_report(path: str, problem: Problem) -> HDF5Report:
    """Return the report of a file that could not be opened."""
    return HDF5Report(path, problems=(problem,), fatal=problem)


def problem_of(error: CheckpointError) -> Problem:
    """Return the problem that an error describes."""
    return Problem(error.code, error.where.key, error.message, error.found, error.expected, error.where.offset)


def report_from_json(value: Any) -> HDF5Report:
    """Return the report that `HDF5Report.to_json` made; raises KeyError, TypeError or ValueError for anything else."""
    attributes = dict(value["attributes"])
    for name in ("layer_names", "lambda_layers", "optimizer_weight_names"):
        attributes[name] = tuple(attributes[name])
    attributes["weight_names"] = {name: tuple(names) for name, names in attributes["weight_names"].items()}
    return HDF5Report(
        path=value["path"],
        datasets=tuple(_dataset_from_json(row) for row in value["datasets"]),
        attributes=KerasAttributes(**attributes),
        problems=tuple(Problem(**problem) for problem in value["problems"]),
        fatal=None if value["fatal"] is None else Problem(**value["fatal"]),
    )


def _dataset_from_json(row: Any) -> Dataset:
    row = dict(row)
    row["shape"] = None if row["shape"] is None else tuple(row["shape"])
    if row["carried"] is not None:
        key, dtype, shape = row["carried"]
        row["carried"] = Carried(str(key), str(dtype), tuple(map(int, shape)))
    row["refusal"] = None if row["refusal"] is None else Problem(**row["refusal"])
    return Dataset(**row)
