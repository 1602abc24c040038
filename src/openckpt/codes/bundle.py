"""Codes of the area `bundle`: the V2 checkpoint, its index entries and data files."""

from openckpt.codes.code import Code

_COPY = "fetch or copy the checkpoint again, or go back to another step: openckpt find {dir}"

CODES: dict[str, Code] = {
    "bundle.no-header": Code(
        "error",
        "The index starts without the entry that describes the checkpoint: it was written by a faulty program or is no index.",
        _COPY,
    ),
    "bundle.bad-header": Code(
        "error", "The entry that describes the checkpoint makes no sense: a faulty writer or a hostile file.", _COPY
    ),
    "bundle.is-v1": Code(
        "error",
        "A file of TensorFlow's first checkpoint format carries the name of an index.",
        "give it the name that it had, without .index: cp {path} {prefix}",
    ),
    "bundle.version": Code(
        "error",
        "The checkpoint was written by a TensorFlow that changed the format and says so.",
        "pip install --upgrade openckpt",
    ),
    "bundle.endianness": Code(
        "error", "The byte order in the header is neither little nor big: a faulty writer.", _COPY
    ),
    "bundle.bad-entry": Code(
        "error",
        "One entry of the index cannot be understood; TensorFlow aborts the whole process on such a file.",
        _COPY,
    ),
    "bundle.bad-shape": Code(
        "error", "The shape of a tensor is impossible; TensorFlow aborts the whole process on such a file.", _COPY
    ),
    "bundle.size-mismatch": Code(
        "error",
        "Dtype and shape of a tensor ask for another number of bytes than the index states: a faulty writer or a patched index.",
        _COPY,
    ),
    "bundle.resource": Code(
        "error",
        "The entry is a handle to something that lived in the program that saved it; no value was stored.",
        None,
    ),
    "bundle.shard-range": Code(
        "error", "The index points to a data file that cannot exist: a faulty writer or a patched index.", _COPY
    ),
    "bundle.shard-missing": Code(
        "error",
        "A data file of the checkpoint is not there: it was not downloaded, was left out of a copy (too large for the repository?) or deleted.",
        "copy the missing file next to the index, or look for another step: openckpt find {dir}",
    ),
    "bundle.shard-count": Code(
        "warning",
        "The index states another number of data files than there are, although these are complete: TensorFlow's merge miscounts parts without data and then cannot read the result.",
        None,
    ),
    "bundle.data-truncated": Code(
        "error",
        "A data file is shorter than the index says: an interrupted save or copy, a full disk, or a file of another step.",
        _COPY,
    ),
    "bundle.crc-mismatch": Code(
        "error",
        "The tensor's bytes are not those that were written: a bad disk, memory or network, a transfer in text mode, or a data file of another step.",
        _COPY,
    ),
    "bundle.string-lengths": Code("error", "The list of string lengths before a string tensor is damaged.", _COPY),
    "bundle.variant": Code("error", "The pieces of a variant tensor are damaged.", _COPY),
    "bundle.variant-big-endian": Code(
        "error",
        "The checkpoint comes from a big-endian machine; what TensorFlow would store for a variant there is not known.",
        None,
    ),
    "bundle.slice-missing": Code(
        "error", "A partitioned tensor lists a piece that the index does not have: a lost part of a merge.", _COPY
    ),
    "bundle.slice-contradicts": Code(
        "error",
        "A piece of a partitioned tensor has another dtype or shape than the tensor says: a faulty merge.",
        _COPY,
    ),
    "bundle.slice-orphan": Code(
        "warning", "The index holds a piece of a partitioned tensor that no tensor lists; it can never be read.", None
    ),
    "bundle.slice-unreadable": Code(
        "note",
        "Stock TensorFlow writes slices of this data type but cannot put them together again; openckpt can.",
        None,
    ),
    "bundle.merge-duplicate": Code(
        "error",
        "Two of the parts that are to become one checkpoint hold the same tensor, or the same piece of one: two writers were given the same work, or a part of an earlier save was left in the list.",
        "let each writer save other tensors, or leave one of the two parts out",
    ),
    "bundle.merge-contradicts": Code(
        "error",
        "The parts that are to become one checkpoint disagree about byte order, format version, or the dtype or shape of a tensor that lies in pieces in several of them: they were written by different programs, or belong to different saves.",
        "merge only parts of one save: openckpt ls {path}",
    ),
    "bundle.overlap": Code(
        "warning",
        "Two tensors share bytes of a data file, which TensorFlow never writes: a faulty writer or a patched index.",
        None,
    ),
    "bundle.unused-bytes": Code(
        "warning",
        "Part of a data file belongs to no tensor: a file of another step, something appended, or a patched index.",
        None,
    ),
    "bundle.safetensors-header": Code(
        "note", "The data file is at the same time a safetensors file: a header lies before the first tensor.", None
    ),
    "bundle.padding": Code("note", "Zeros between the tensors align them; stock TensorFlow reads such files.", None),
    "bundle.wrong-endian": Code(
        "error",
        "The header says that the numbers are stored in the other byte order than they are; TensorFlow would load garbage without a word.",
        _COPY,
    ),
}
