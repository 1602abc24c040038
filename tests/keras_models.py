"""Keras 3 programs of every shape in which a model can hold state; the same on every backend. Import after KERAS_BACKEND is set.

Every builder returns a compiled model that was built on `BATCH`, its optimizer and metrics too, and not trained: values are
given by `fill`, from the path of each variable and a seed, so that two processes make the same.
"""

from __future__ import annotations

import warnings
import zlib
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import layers

X = np.linspace(-1, 1, 4 * 6, dtype=np.float32).reshape(4, 6)
Y = np.linspace(0, 1, 4 * 2, dtype=np.float32).reshape(4, 2)
IDS = (np.arange(4 * 6).reshape(4, 6) % 11).astype("int32")
SEQUENCE = np.linspace(-1, 1, 4 * 3 * 6, dtype=np.float32).reshape(4, 3, 6)

BUILDERS: dict[str, Callable[[], tuple[Any, Any]]] = {}


def architecture(build: Callable[[], tuple[Any, Any]]) -> Callable[[], tuple[Any, Any]]:
    BUILDERS[build.__name__] = build
    return build


def make(name: str, *, optimizer: Any = None) -> Any:
    """Return the model, built and compiled."""
    keras.utils.clear_session()
    model, x = BUILDERS[name]()
    if not model.compiled:
        model.compile(optimizer=optimizer or keras.optimizers.Adam(1e-3), loss="mse")
    if keras.backend.backend() == "numpy":
        model(x)  # it makes up inputs to build with, which are no indices for an embedding
    model._symbolic_build(data_batch=(x, Y))
    if not model.optimizer.built:  # the NumPy backend does not train
        model.optimizer.build(model.trainable_variables)
    return model


def state_of(model: Any) -> list[Any]:
    """Return every variable that a model owns, each once."""
    seen: dict[int, Any] = {}
    for variable in [*model.variables, *model.optimizer.variables, *model.metrics_variables]:
        seen[id(variable)] = variable
    for generator in seeds_of(model):
        seen[id(generator.state)] = generator.state
    return list(seen.values())


def seeds_of(model: Any) -> list[Any]:
    return [seed for layer in model._flatten_layers() for seed in layer._seed_generators]


def values_of(model: Any) -> list[Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # NumPy warns of what Keras calls
        return [np.array(keras.ops.convert_to_numpy(variable.value)) for variable in state_of(model)]


def fill(model: Any, seed: int = 0) -> None:
    """Give every variable a value of its own."""
    for number, variable in enumerate(state_of(model)):
        random = np.random.default_rng(zlib.crc32(f"{variable.path} {number} {seed}".encode()))
        if "int" in keras.backend.standardize_dtype(variable.dtype):
            value = random.integers(1, 1000, variable.shape)
        else:
            value = random.random(tuple(variable.shape)).astype("float32")  # JAX holds no more of a float64
        variable.assign(value.astype(keras.backend.standardize_dtype(variable.dtype)))


# -- functional and sequential ------------------------------------------------------------------------------------------


@architecture
def sequential() -> tuple[Any, Any]:
    return keras.Sequential([layers.Input((6,)), layers.Dense(3), layers.Dense(2)]), X


@architecture
def sequential_without_input() -> tuple[Any, Any]:
    return keras.Sequential([layers.Dense(3), layers.Dropout(0.5), layers.Dense(2)]), X


@architecture
def functional() -> tuple[Any, Any]:
    entry = layers.Input((6,))
    left, right = layers.Dense(3, name="left")(entry), layers.Dense(3, name="right")(entry)
    return keras.Model(entry, layers.Dense(2)(layers.Add()([left, right]))), X


@architecture
def shared_layers() -> tuple[Any, Any]:
    entry = layers.Input((6,))
    twice = layers.Dense(6, name="twice")
    return keras.Model(entry, layers.Dense(2)(twice(twice(entry)))), X


@architecture
def nested_models() -> tuple[Any, Any]:
    inner = keras.Sequential([layers.Input((6,)), layers.Dense(4), layers.BatchNormalization()])
    entry = layers.Input((6,))
    return keras.Model(entry, layers.Dense(2)(inner(entry))), X


@architecture
def batch_normalization_and_dropout() -> tuple[Any, Any]:
    return keras.Sequential(
        [layers.Input((6,)), layers.Dense(4), layers.BatchNormalization(), layers.Dropout(0.3, seed=7), layers.Dense(2)]
    ), X


@architecture
def bidirectional() -> tuple[Any, Any]:
    entry = layers.Input((3, 6))
    return keras.Model(entry, layers.Dense(2)(layers.Bidirectional(layers.LSTM(2, dropout=0.1))(entry))), SEQUENCE


@architecture
def stacked_cells() -> tuple[Any, Any]:
    entry = layers.Input((3, 6))
    recurrent = layers.RNN([layers.LSTMCell(3), layers.GRUCell(2)])
    return keras.Model(entry, recurrent(entry)), SEQUENCE


@architecture
def attention_and_embedding() -> tuple[Any, Any]:
    entry = layers.Input((6,), dtype="int32")
    embedded = layers.Embedding(11, 4)(entry)
    attended = layers.MultiHeadAttention(2, 2, dropout=0.1)(embedded, embedded)
    normal = layers.LayerNormalization()(attended)
    return keras.Model(entry, layers.Dense(2)(layers.GlobalAveragePooling1D()(normal))), IDS


@architecture
def wrapped_layers() -> tuple[Any, Any]:
    entry = layers.Input((3, 6))
    wrapped = layers.TimeDistributed(layers.SpectralNormalization(layers.Dense(4)))(entry)
    convolved = layers.SeparableConv1D(3, 2)(wrapped)
    return keras.Model(entry, layers.Dense(2)(layers.Flatten()(convolved))), SEQUENCE


# -- subclassed ---------------------------------------------------------------------------------------------------------


class Subclassed(keras.Model):
    def __init__(self) -> None:
        super().__init__()
        self.first = layers.Dense(3)
        self.second = layers.Dense(2)

    def call(self, x: Any) -> Any:
        return self.second(self.first(x))


@architecture
def subclassed() -> tuple[Any, Any]:
    return Subclassed(), X


class Lists(keras.Model):
    def __init__(self) -> None:
        super().__init__()
        self.blocks = [layers.Dense(4) for _ in range(2)]
        self.deep = [[layers.Dense(4)], {"in": layers.Dense(4)}]
        self.last = layers.Dense(2)

    def call(self, x: Any) -> Any:
        for layer in [*self.blocks, self.deep[0][0], self.deep[1]["in"]]:
            x = layer(x)
        return self.last(x)


@architecture
def lists() -> tuple[Any, Any]:
    return Lists(), X


class Dicts(keras.Model):
    def __init__(self) -> None:
        super().__init__()
        self.heads = {"a": layers.Dense(2), "b/c": layers.Dense(2)}
        self.last = layers.Dense(2)

    def call(self, x: Any) -> Any:
        return self.last(self.heads["a"](x) + self.heads["b/c"](x))


@architecture
def dicts() -> tuple[Any, Any]:
    return Dicts(), X


class Tuples(keras.Model):
    def __init__(self) -> None:
        super().__init__()
        self.pair = (layers.Dense(3), layers.Dense(3))
        self.mixed = (layers.Dense(2), 3, [layers.Dense(2)])

    def call(self, x: Any) -> Any:
        for layer in [*self.pair, self.mixed[0], self.mixed[2][0]]:
            x = layer(x)
        return x


@architecture
def tuples() -> tuple[Any, Any]:
    return Tuples(), X


class Grower(layers.Layer):
    """Makes layers and weights when it is built."""

    def __init__(self, units: int) -> None:
        super().__init__()
        self.units = units

    def build(self, shape: Any) -> None:
        self.inner = layers.Dense(self.units)
        self.inner.build(shape)
        self.scale = self.add_weight(shape=(self.units,), name="scale")
        self.many = [self.add_weight(shape=(), name=f"w{n}") for n in range(2)]
        self.add_weight(shape=(2,), name="nameless", trainable=False)

    def call(self, x: Any) -> Any:
        return self.inner(x) * self.scale + self.many[0] + self.many[1]


@architecture
def layers_made_in_build() -> tuple[Any, Any]:
    return keras.Sequential([layers.Input((6,)), Grower(3), layers.Dense(2)]), X


class Noisy(keras.Model):
    def __init__(self) -> None:
        super().__init__()
        self.seed = keras.random.SeedGenerator(3)
        self.generators = [keras.random.SeedGenerator(4), keras.random.SeedGenerator(5)]
        self.dense = layers.Dense(2)
        self.seen = keras.metrics.Mean(name="seen")
        self.also = {"mae": keras.metrics.MeanAbsoluteError()}

    def call(self, x: Any) -> Any:
        return self.dense(x + keras.random.normal((4, 6), seed=self.seed))


@architecture
def seeds_and_metrics_of_its_own() -> tuple[Any, Any]:
    return Noisy(), X


class Functionals(keras.Model):
    """A functional model with attributes of its own, among them its layers."""

    def __init__(self) -> None:
        entry = layers.Input((6,))
        first, second = layers.Dense(3), layers.Dense(2)
        super().__init__(entry, second(first(entry)))
        self.first = first
        self.both = (second, first)


@architecture
def functional_subclass() -> tuple[Any, Any]:
    return Functionals(), X


# -- optimizers and metrics ---------------------------------------------------------------------------------------------


def _compiled(**options: Any) -> tuple[Any, Any]:
    model = keras.Sequential([layers.Input((6,)), layers.Dense(3), layers.Dense(2)])
    model.compile(loss="mse", **options)
    return model, X


@architecture
def moving_averages() -> tuple[Any, Any]:
    return _compiled(optimizer=keras.optimizers.SGD(0.1, momentum=0.9, use_ema=True))


@architecture
def loss_scaling() -> tuple[Any, Any]:
    return _compiled(optimizer=keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam(1e-3, amsgrad=True)))


@architecture
def gradient_accumulation() -> tuple[Any, Any]:
    return _compiled(optimizer=keras.optimizers.AdamW(1e-3, gradient_accumulation_steps=2))


@architecture
def learning_rate_schedule() -> tuple[Any, Any]:
    return _compiled(optimizer=keras.optimizers.RMSprop(keras.optimizers.schedules.CosineDecay(0.1, 10), momentum=0.1))


@architecture
def compiled_metrics() -> tuple[Any, Any]:
    return _compiled(
        optimizer="adagrad", metrics=["mae", keras.metrics.RootMeanSquaredError()], weighted_metrics=["mse"]
    )


@architecture
def mixed_precision() -> tuple[Any, Any]:
    model = keras.Sequential(
        [layers.Input((6,)), layers.Dense(3, dtype="bfloat16"), layers.Dense(2, dtype="mixed_bfloat16")]
    )
    model.compile(loss="mse", optimizer="ftrl")
    return model, X


class Counting(layers.Layer):
    def build(self, shape: Any) -> None:
        self.seen = self.add_weight(shape=(), dtype="int64", initializer="zeros", trainable=False)

    def call(self, x: Any) -> Any:
        return x


@architecture
def sixty_four_bits() -> tuple[Any, Any]:
    return keras.Sequential([layers.Input((6,)), layers.Dense(3, dtype="float64"), Counting(), layers.Dense(2)]), X


@architecture
def adapted_normalization() -> tuple[Any, Any]:
    normal = layers.Normalization()
    normal.adapt(X)
    return keras.Sequential([layers.Input((6,)), normal, layers.Dense(2)]), X
