"""Codes of the area `npz`."""

from openckpt.codes.code import Code

_AGAIN = "fetch the file again from where it came; sha256sum {path} shows whether two copies are equal"
_DAMAGED = "The member was damaged, or was not written by NumPy's save functions."

CODES: dict[str, Code] = {
    "npz.pickled": Code(
        "error",
        "The array holds Python objects, which are stored as a pickle: reading it would run code that the file chose.",
        "if you trust the file, load it with numpy.load(..., allow_pickle=True) and save it again as plain arrays",
    ),
    "npz.header": Code("error", _DAMAGED, _AGAIN),
    "npz.magic": Code("error", _DAMAGED, _AGAIN),
    "npz.version": Code("error", "The member is of a newer .npy version.", "pip install --upgrade openckpt"),
    "npz.size-mismatch": Code(
        "error", "The bytes of the member are not those that its data type and shape need.", _AGAIN
    ),
    "npz.void": Code(
        "warning",
        "NumPy forgot the data type when it saved (bfloat16 and float8 become raw bytes of the same size), so it must be given.",
        "numpy.load(path)[key].view(ml_dtypes.bfloat16), or whichever type of this size it was",
    ),
    "npz.text": Code("error", "A text element holds a number that is no character.", _AGAIN),
    "npz.not-an-archive": Code("error", "The file is not a zip archive, and so no .npz file.", "head -c 200 {path}"),
    "npz.side-entry": Code(
        "error",
        "The member openckpt.json says what NumPy forgets about the tensors, and contradicts them: it was edited or damaged, or the "
        "file was pieced together.",
        _AGAIN,
    ),
    "npz.side-version": Code("error", "A newer openckpt wrote this file.", "pip install --upgrade openckpt"),
    "npz.other-member": Code("note", "The archive also holds a file that is no array; it is passed over.", None),
}
