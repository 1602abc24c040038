"""Codes of the area `keras`."""

from openckpt.codes.code import Code

_AGAIN = "fetch the file again from where it came; sha256sum {path} shows whether two copies are equal"

CODES: dict[str, Code] = {
    "keras.config": Code(
        "warning",
        "The model's configuration is not the JSON that Keras writes. The weights can be read, the model cannot be rebuilt from it.",
        _AGAIN,
    ),
    "keras.metadata": Code(
        "warning",
        "The archive's metadata.json is not the JSON that Keras writes. The weights are not touched by that.",
        _AGAIN,
    ),
    "keras.lambda-layer": Code(
        "note",
        "The model has Lambda layers, which are Python code inside the file. openckpt never runs it; Keras does, when asked to load it "
        "with safe_mode=False.",
        None,
    ),
    "keras.no-weights": Code(
        "error",
        "The archive has no model.weights.h5: it is incomplete, or no Keras model at all.",
        "openckpt doctor {dir}",
    ),
    "keras.npz-weights": Code(
        "error",
        "The weights were saved as model.weights.npz, which holds pickled objects: reading them would run code, and Keras itself cannot "
        "load such a file back.",
        "save the model again in the default format: model.save('model.keras')",
    ),
    "keras.not-an-archive": Code(
        "error", "The file is neither a .keras archive nor an unzipped one.", "head -c 200 {path}"
    ),
}
