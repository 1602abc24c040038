"""Codes of the area `table`: the file format under ``.index`` files and V1 checkpoints."""

from openckpt.codes.code import Code

_COPY = "fetch or copy the file again; if there is no better copy, openckpt doctor {path} tells what it held"

CODES: dict[str, Code] = {
    "table.too-short": Code(
        "error",
        "The file is shorter than the 48 bytes that end every table: an interrupted save, a broken download, or another kind of file.",
        _COPY,
    ),
    "table.bad-magic": Code(
        "error",
        "The file does not end as a table does: it is truncated, something was appended to it, or it is another kind of file.",
        _COPY,
    ),
    "table.footer-handle": Code("error", "The last 48 bytes of the file are damaged.", _COPY),
    "table.handle-past-end": Code(
        "error", "The file says that a block lies behind its end: it is damaged or was cut and patched.", _COPY
    ),
    "table.bad-handle": Code("error", "The list of blocks inside the file is damaged.", _COPY),
    "table.block-crc": Code(
        "error",
        "Bytes of the file have changed since it was written: a bad disk, memory or network, or a transfer in text mode.",
        _COPY,
    ),
    "table.block-type": Code(
        "error",
        "A block is compressed in a way that no TensorFlow release uses for checkpoints.",
        "pip install --upgrade openckpt",
    ),
    "table.snappy": Code("error", "A compressed block of the file is damaged or hostile.", _COPY),
    "table.bad-block": Code(
        "error", "A block's own table of contents does not fit into it: damaged or hostile.", _COPY
    ),
    "table.bad-entry": Code("error", "An entry of the file does not fit into its block: damaged or hostile.", _COPY),
    "table.key-order": Code(
        "error",
        "The keys of the file are not sorted, so no reader could find them: the writer had a bug or the file is hostile.",
        _COPY,
    ),
    "table.separator": Code(
        "error",
        "The file's index points to the wrong block for some keys: the writer had a bug or the file is hostile.",
        _COPY,
    ),
    "table.blocks-overlap": Code("warning", "Two blocks of the file share bytes, which no writer does.", None),
    "table.metaindex": Code(
        "warning",
        "A part of the file that TensorFlow writes but never reads is damaged. The tensors are not affected, but the file is not as it was written.",
        "copy the checkpoint from a good source when you can",
    ),
}
