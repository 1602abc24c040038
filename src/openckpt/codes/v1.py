"""Codes of the area `v1`: checkpoints of the first format, tables with the values inside."""

from openckpt.codes.code import Code

_AGAIN = "fetch the checkpoint again, or use another step: openckpt find {dir}"

CODES: dict[str, Code] = {
    "v1.not-v1": Code(
        "error",
        "The file is a table, but not one that holds a V1 checkpoint: usually the index of a V2 checkpoint whose suffix was lost.",
        "give the file its suffix .index back, beside its data files, and run: openckpt doctor {dir}",
    ),
    "v1.no-meta": Code(
        "error",
        "The table lacks the list of its tensors: it is a table of another program, or its first block was replaced.",
        _AGAIN,
    ),
    "v1.bad-meta": Code(
        "error", "The list of tensors in the table is not readable: damaged, or made by another program.", _AGAIN
    ),
    "v1.duplicate-name": Code(
        "error", "The list of tensors names one tensor twice, which no TensorFlow writes.", _AGAIN
    ),
    "v1.bad-shape": Code("error", "The list of tensors gives a tensor a shape that no stored tensor can have.", _AGAIN),
    "v1.version": Code(
        "error",
        "A newer TensorFlow wrote this checkpoint and asks for a reader that knows its format.",
        "pip install --upgrade openckpt",
    ),
    "v1.conflict": Code(
        "error",
        "Shards of different saves lie together: they disagree about the dtype or shape of a tensor.",
        _AGAIN,
    ),
    "v1.shard-missing": Code(
        "error",
        "The names of the shards say how many there are, and some were not copied. TensorFlow does not notice until a tensor is not found.",
        "copy the missing files from where the checkpoint came from",
    ),
    "v1.slice-missing": Code(
        "error",
        "The checkpoint lists tensors whose values are not there: a block of the file is damaged, or the writer did not finish.",
        _AGAIN,
    ),
    "v1.slice-mismatch": Code(
        "error", "A value is filed under the key of another tensor: the table was changed by hand or damaged.", _AGAIN
    ),
    "v1.bad-value": Code(
        "error", "A stored value is not the message it should be: damaged, or made by another program.", _AGAIN
    ),
    "v1.value-count": Code(
        "error",
        "A tensor has more or fewer stored values than its shape has places: damaged, or made by another program.",
        _AGAIN,
    ),
    "v1.unlisted-value": Code(
        "warning",
        "The table holds values that its list of tensors does not name; TensorFlow cannot see them.",
        "openckpt ls {path}",
    ),
    "v1.dtype": Code(
        "error",
        "The format of V1 checkpoints has no place for values of this data type; no TensorFlow writes one.",
        _AGAIN,
    ),
    "v1.rank": Code(
        "error",
        "The tensor has more dimensions than numpy's arrays can have.",
        "the tensor can be listed but not read: openckpt ls {path}",
    ),
}
