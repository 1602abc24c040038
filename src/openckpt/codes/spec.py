"""Codes of the area `spec`: keys, dtypes and shapes, whatever the format."""

from openckpt.codes.code import Code

CODES: dict[str, Code] = {
    "spec.no-such-key": Code(
        "error",
        "The checkpoint holds no tensor of this name: another model, another version of it, or a renamed scope.",
        "openckpt ls {path}",
    ),
    "spec.unknown-dtype": Code(
        "error",
        "The tensor has a data type that this version of openckpt does not know; it can be listed but not read.",
        "pip install --upgrade openckpt",
    ),
    "spec.no-view": Code(
        "error",
        "This tensor cannot be shown as a view of the file's own bytes: it is compressed, pieced together, byte-swapped or not numeric.",
        "read it as a copy: ckpt[key]",
    ),
    "spec.bad-target": Code(
        "error",
        "The array given for the result has another dtype or shape than the stored tensor, or is not writable and C-contiguous.",
        "pass numpy.empty(spec.shape, spec.numpy_dtype)",
    ),
    "spec.no-npy": Code(
        "error",
        "A .npy file without pickle holds numbers only; strings and variants have no form in it.",
        "openckpt show --json {path} {key}",
    ),
}
