"""Codes of the area `safetensors`."""

from openckpt.codes.code import Code

_BROKEN = "The file was damaged or cut off in a download or a copy, or it is not a safetensors file at all."
_WRITER = "A program that wrote this file did not follow the format, or somebody edited the header by hand."
_AGAIN = "fetch the file again from where it came; sha256sum {path} shows whether two copies are equal"

CODES: dict[str, Code] = {
    "safetensors.too-short": Code("error", _BROKEN, _AGAIN),
    "safetensors.header-past-end": Code(
        "error",
        "The file says that its header is longer than the file itself: a download that broke off, or another kind of file.",
        _AGAIN,
    ),
    "safetensors.header-text": Code("error", _BROKEN, _AGAIN),
    "safetensors.duplicate-name": Code(
        "error",
        "One name stands for two tensors, so different programs would load different weights from this file.",
        "write the file again with unique names",
    ),
    "safetensors.header-entry": Code("error", _WRITER, _AGAIN),
    "safetensors.metadata": Code("error", _WRITER, _AGAIN),
    "safetensors.offsets": Code(
        "error",
        "The tensors do not fill the data part of the file exactly: they overlap, leave holes, or point outside it.",
        _AGAIN,
    ),
    "safetensors.size-mismatch": Code(
        "error", "The bytes of a tensor are more or fewer than its data type and shape need.", _AGAIN
    ),
    "safetensors.truncated": Code(
        "error",
        "The file ends before its last tensor does: a download or a copy broke off, or it is still being written.",
        _AGAIN,
    ),
    "safetensors.trailing-bytes": Code(
        "error", "Bytes follow the last tensor: something was appended, or the header was replaced.", _AGAIN
    ),
    "safetensors.index-entry": Code("error", _WRITER, "fetch {path} again from where it came"),
    "safetensors.unsafe-shard-name": Code(
        "error",
        "The index names a file outside its own directory. Files of a checkpoint lie beside each other, so this is an attempt "
        "to read something else.",
        "do not use this file; fetch it again from a source that you trust",
    ),
    "safetensors.shard-missing": Code(
        "error",
        "One of the files that make up this checkpoint is not beside its index: it was not downloaded, or was moved.",
        "ls -l {dir}",
    ),
    "safetensors.shard-key-missing": Code(
        "error",
        "The index says that this tensor is in a file that does not hold it: index and files are of different checkpoints.",
        "fetch the index and all of its files again, from one place",
    ),
    "safetensors.unlisted-key": Code(
        "note", "A file of this checkpoint holds a tensor that the index does not name, so loaders pass over it.", None
    ),
}
