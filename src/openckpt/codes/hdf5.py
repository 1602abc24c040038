"""Codes of the area `hdf5`."""

from openckpt.codes.code import Code

_AGAIN = "fetch the file again from where it came; sha256sum {path} shows whether two copies are equal"
_DAMAGED = "The file was damaged on disk, in a download or in a copy, or its writer was killed."
_LEAVE = (
    "do not load this file with a program that follows such links; ask its author for a file with everything inside"
)

CODES: dict[str, Code] = {
    "hdf5.no-signature": Code(
        "error",
        "The file is not HDF5 whatever its name says: often a Git LFS pointer, an error page, or another format.",
        "head -c 200 {path}",
    ),
    "hdf5.text-mode": Code(
        "error",
        "The file was transferred as text (FTP in text mode, git with autocrlf, a mail program), which changes line ends in binary data.",
        "fetch the file again in binary mode; for git: mark it in .gitattributes as -text",
    ),
    "hdf5.superblock": Code("error", _DAMAGED, _AGAIN),
    "hdf5.driver": Code(
        "error",
        "The file says that it is one of several files that make one HDF5 file (the family or multi driver), which Keras never "
        "writes; or its first bytes are damaged.",
        "fetch or copy the file again; if it is honest, make one file of the parts with h5repack or h5repart",
    ),
    "hdf5.version": Code(
        "error",
        "The file was written by a newer HDF5 library than openckpt knows.",
        "pip install --upgrade openckpt h5py",
    ),
    "hdf5.truncated": Code(
        "error",
        "The file ends too early: a download or a copy broke off, the disk was full, or the program that wrote it was killed.",
        _AGAIN,
    ),
    "hdf5.not-closed": Code(
        "error",
        "The program that wrote the file never closed it: it is still running, or it was killed while it saved.",
        "when no program is writing it any more: h5clear -s {path} (from the hdf5-tools package), on a copy",
    ),
    "hdf5.unreadable": Code("error", _DAMAGED, _AGAIN),
    "hdf5.object-damaged": Code("error", _DAMAGED, _AGAIN),
    "hdf5.parser-crashed": Code(
        "error",
        "The HDF5 library crashed, hung or ran out of memory on this file. It ran in a process of its own, so nothing else is harmed; "
        "the file is damaged or was made to do this.",
        _AGAIN,
    ),
    "hdf5.external-link": Code(
        "error",
        "A name in this file leads into another file. Files of a checkpoint hold their weights themselves, so this is an attempt to "
        "read something else, or a file that is not a checkpoint.",
        _LEAVE,
    ),
    "hdf5.soft-link": Code(
        "warning",
        "A name in this file is a symbolic link to another name. Keras writes none, and openckpt follows none.",
        "h5copy -i {path} -o copy.h5 -s / -d / -f soft (from the hdf5-tools package) writes a file without such links",
    ),
    "hdf5.external-storage": Code(
        "error",
        "The bytes of this dataset lie in another file that this file names. openckpt opens no file that a file names.",
        _LEAVE,
    ),
    "hdf5.virtual-dataset": Code(
        "error",
        "This dataset is a mosaic of datasets in other files that this file names. openckpt opens no file that a file names.",
        _LEAVE,
    ),
    "hdf5.shared-group": Code(
        "note", "A group has two names in this file; its datasets are listed under the first.", None
    ),
    "hdf5.attribute-skipped": Code(
        "note",
        "An attribute is stored so that reading it might take any amount of memory, and it was passed over: the order of keys may be "
        "that of their paths instead of the model's.",
        None,
    ),
    "hdf5.null-dataspace": Code("warning", "The dataset has a type but was never given a value.", "openckpt ls {path}"),
    "hdf5.size-mismatch": Code(
        "error", "The bytes stored for this dataset are not those that its type and shape need.", _AGAIN
    ),
    "hdf5.data-past-end": Code(
        "error", "The bytes of this dataset should lie behind the end of the file: the file was cut off.", _AGAIN
    ),
    "hdf5.declared-size": Code(
        "error",
        "The dataset claims far more elements than bytes are stored for it: a decompression bomb, a damaged file, or an array that is "
        "nearly all zeros.",
        "if you trust this file, raise the limit archive_ratio as the message says",
    ),
    "hdf5.filter": Code(
        "error",
        "The dataset was compressed with a filter that is not part of HDF5 itself; reading it would load foreign code.",
        "write the file again with gzip, or without compression",
    ),
    "hdf5.layout": Code(
        "error",
        "The dataset is stored in a rare way that openckpt does not read.",
        "write the file again with h5py's defaults",
    ),
    "hdf5.chunk-damaged": Code("error", _DAMAGED, _AGAIN),
    "hdf5.chunk-checksum": Code(
        "error", "Bytes of this dataset changed after they were written: a damaged disk, copy or download.", _AGAIN
    ),
    "hdf5.heap": Code("error", _DAMAGED, _AGAIN),
    "hdf5.shard-missing": Code(
        "error",
        "One of the files that make up these weights is not beside its index: it was not downloaded, or was moved.",
        "ls -l {dir}",
    ),
    "hdf5.index": Code(
        "error", "The .weights.json beside the shards is damaged or was not written by Keras.", "head -c 400 {path}"
    ),
    "hdf5.unsafe-shard-name": Code(
        "error",
        "The index names a file outside its own directory. Files of a checkpoint lie beside each other, so this is an attempt "
        "to read something else.",
        "do not use this file; fetch it again from a source that you trust",
    ),
    "hdf5.carried": Code(
        "error",
        "In a file that openckpt wrote, what stands beside a tensor contradicts it: the file was edited or damaged.",
        "convert the checkpoint again from where it came: openckpt convert SRC {path} --overwrite",
    ),
    "hdf5.carried-version": Code("error", "A newer openckpt wrote this file.", "pip install --upgrade openckpt"),
    "hdf5.duplicate-key": Code(
        "error",
        "Two files of this checkpoint hold a dataset of the same name.",
        "fetch the index and all of its files again, from one place",
    ),
}
