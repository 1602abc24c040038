"""Codes of the area `writing`: what cannot be put into a checkpoint."""

from openckpt.codes.code import Code

CODES: dict[str, Code] = {
    "writing.dtype": Code(
        "error",
        "TensorFlow's checkpoints have no data type for these values: dates, records, extended precision.",
        "convert the array to a type that a checkpoint holds, for example array.astype('float64')",
    ),
    "writing.resource": Code(
        "error",
        "A resource is a handle of a running TensorFlow program; TensorFlow itself aborts when asked to save one.",
        "save the values that the resource leads to",
    ),
    "writing.wrong-dtype": Code(
        "error",
        "The array is of another type than it was asked to be stored as, or than its spec announced. Only quantised types are "
        "stored from the plain integers of the same width.",
        "convert the array, or correct the entry of dtypes or specs",
    ),
    "writing.wrong-shape": Code(
        "error",
        "The array has another shape than its spec announced when the checkpoint was begun.",
        "correct the specs, or hand over the array that was announced",
    ),
    "writing.wrong-size": Code(
        "error",
        "The bytes of this string or variant tensor are more or fewer than its spec announced.",
        "leave nbytes out of the spec (None) where it is not known",
    ),
    "writing.no-array": Code(
        "error",
        "This value is neither an array nor a number, text or bytes, nor can numpy make an array of it.",
        "hand over a numpy array; for torch: tensor.detach().cpu().numpy(), for its bfloat16: "
        "tensor.detach().cpu().view(torch.int16).numpy().view(ml_dtypes.bfloat16)",
    ),
    "writing.element": Code(
        "error",
        "Object arrays become string tensors, so their elements must be str or bytes (or openckpt.Variant, all of them).",
        "convert the elements, or the array to a numeric type",
    ),
    "writing.key": Code(
        "error",
        "The name cannot be the key of a tensor: the empty key is the header's, a key has at most a mebibyte, and some names "
        "that begin with a zero byte are those of the pieces of other tensors.",
        "choose another name",
    ),
    "writing.duplicate-key": Code(
        "error",
        "Two tensors were given under one key.",
        "give each tensor a key of its own",
    ),
    "writing.foreign-key": Code(
        "error",
        "The checkpoint was begun with the specs of all its tensors, and this key is not among them.",
        "announce every tensor in specs, or begin without specs",
    ),
    "writing.missing-keys": Code(
        "error",
        "The checkpoint was begun with the specs of all its tensors, and some of them never came. Nothing was written.",
        "add every tensor that was announced",
    ),
    "writing.prefix": Code(
        "error",
        "The prefix has no last part to name the files after, or one that this system cannot hold, or it is a URL: openckpt writes "
        "to the disks of this machine.",
        "name the checkpoint, for example run/ckpt-1",
    ),
    "writing.slices": Code(
        "error",
        "The pieces of this partitioned tensor do not tile it: they overlap, leave a gap, or differ from their extents.",
        "hand over pieces that cover the tensor exactly once",
    ),
    "writing.manifest-name": Code(
        "error",
        "The checkpoint would have the name of the manifest, the file that says which checkpoint is the newest.",
        "call the checkpoint otherwise, for example run/ckpt-1, or give another latest_filename",
    ),
    "writing.parts-missing": Code(
        "error",
        "A merge takes the parts that every writer has saved under PREFIX_temp; they are not (all) there.",
        "wait until every writer has saved its part, then merge again",
    ),
    "writing.parts-mixed": Code(
        "error",
        "Parts of two saves with different numbers of writers lie in one directory: one of them was never merged.",
        "remove the parts of the save that was given up, then merge again",
    ),
    "writing.no-tensors": Code(
        "error",
        "TensorFlow cannot read a checkpoint without a tensor.",
        "save at least one tensor",
    ),
    "writing.verify": Code(
        "error",
        "What came back from the disk is not what was written: the disk, its driver or the memory of this machine is at fault. "
        "The checkpoint was not put in place.",
        "check the disk and the system's log; save to another disk",
    ),
}
