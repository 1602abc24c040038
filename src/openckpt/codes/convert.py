"""Codes of the area `convert`."""

from openckpt.codes.code import Code

CODES: dict[str, Code] = {
    "convert.target": Code(
        "error",
        "The name of the target does not say what to write, or says a format that openckpt does not write.",
        "pass the format: openckpt convert SRC DST --to tensorflow, dual, safetensors, hdf5 or npz",
    ),
    "convert.same": Code(
        "error",
        "A file of the source, perhaps under another name, is one that the target would take the place of. A conversion never "
        "replaces what it reads, so that nothing is lost.",
        "choose another name for the target",
    ),
    "convert.exists": Code(
        "error",
        "Something else is at the target already, and nobody asked to replace it.",
        "choose another name, or run the command again with --overwrite",
    ),
    "convert.unreadable": Code(
        "error",
        "Some tensors of the source cannot be read: they are damaged, or of a type that openckpt does not know. Nothing was written.",
        "see why: openckpt doctor {path}; convert the others with --exclude PATTERN",
    ),
    "convert.key": Code(
        "error",
        "The target cannot hold a key of the source: it is empty, too long, or that of a slice of another tensor. Nothing was written.",
        "leave it out with --exclude PATTERN",
    ),
    "convert.nothing": Code(
        "error",
        "There is no tensor to convert: the source has none, or the filters leave none.",
        "openckpt ls {path} shows the keys; * in a pattern crosses /",
    ),
    "convert.cast": Code(
        "error",
        "A cast would not keep what the numbers mean: it leads to another kind of number, to a type that is no number, or out of the "
        "range of the target.",
        "cast float types to float types, integers to integers that hold every value, complex to complex",
    ),
    "convert.shard-names": Code(
        "error",
        "Two keys would have the same name in different files of one safetensors checkpoint.",
        "write one file: leave out --max-shard-size",
    ),
    "convert.verify": Code(
        "error",
        "What was written does not read back as what was read from the source: the disk or the memory is faulty, or another program "
        "changed the file meanwhile. The target must not be trusted.",
        "look at the disk, and convert again with --overwrite",
    ),
}
