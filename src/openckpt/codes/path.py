"""Codes of the area `path`: from what a user typed to a checkpoint."""

from openckpt.codes.code import Code

CODES: dict[str, Code] = {
    "path.not-found": Code(
        "error",
        "No file, directory or checkpoint has this name: a typing error, a missing step at the end of the prefix, or another directory.",
        "openckpt find {dir}",
    ),
    "path.url": Code(
        "error",
        "A URL names a file of another machine; openckpt reads those of this one and goes to no network.",
        "download it with the tool of that place (curl -fLO, gsutil cp -r, aws s3 cp --recursive), then: openckpt doctor FILE",
    ),
    "path.no-checkpoint": Code(
        "error",
        "The directory or archive holds no checkpoint, not even an incomplete one.",
        "openckpt find {path}",
    ),
    "path.no-complete": Code(
        "error",
        "There are files of checkpoints here, but none has an index that can be read: a copy or download that broke off, or stubs.",
        "openckpt doctor {path}",
    ),
    "path.several": Code(
        "error",
        "Several runs lie below this directory, and which one is meant cannot be told.",
        "name one of them; openckpt find {path} lists all",
    ),
    "path.manifest-target": Code(
        "error",
        "The manifest names a checkpoint that was deleted, never copied along, or renamed.",
        "openckpt doctor {dir}",
    ),
    "path.index-missing": Code(
        "error",
        "The index of this checkpoint was not copied, was deleted, or its save was interrupted before the index was written.",
        "openckpt doctor {dir}",
    ),
    "path.not-committed": Code(
        "error",
        "The first save of this checkpoint is still running, or was killed before its index was in place: there is no checkpoint of "
        "this name. Nothing that was saved before is harmed.",
        "wait for a save that runs; what else is there: openckpt find {dir}",
    ),
    "path.meta-only": Code(
        "error",
        "A .meta file holds the graph of a TensorFlow 1 model, not its values; the files with the values were not copied along.",
        "openckpt doctor {dir}",
    ),
    "path.unfinished": Code(
        "error",
        "A save was interrupted before it gave this file its final name, or is still running.",
        "openckpt find {dir}",
    ),
    "path.vanished": Code(
        "error",
        "A training program sweeps its old checkpoints faster than this one could be opened.",
        "open the newest one: openckpt ls {dir}",
    ),
    "path.unreadable": Code(
        "warning",
        "The system refused to show this directory or file, so whatever lies there was left out.",
        "ls -ld {path}",
    ),
    "path.not-a-file": Code(
        "error",
        "The name leads to a link whose target is gone, a pipe, a socket or a device.",
        "ls -lL {path}",
    ),
    "path.not-an-archive": Code(
        "error",
        "A '!' in a path separates an archive from a name inside it; the file before it is no archive.",
        "openckpt ls ARCHIVE!PREFIX",
    ),
    "path.no-variables": Code(
        "error",
        "The SavedModel was exported without variables (a frozen or purely functional model), or its variables folder was not copied.",
        "ls -l {path}",
    ),
    "path.not-a-checkpoint": Code(
        "error",
        "The content of this file is nothing that openckpt reads: another kind of file, or one that is damaged from its first bytes on.",
        "openckpt find {dir}",
    ),
    "path.renamed-index": Code(
        "error",
        "Somebody renamed the index of a checkpoint; its data files can only be found under the name of the index.",
        "mv {path} {path}.index",
    ),
    "path.closed": Code(
        "error",
        "The checkpoint was closed, by its `with` block or by close(), before this read.",
        "open it again, or read inside the with block",
    ),
    "path.outside": Code(
        "error",
        "The manifest names a checkpoint in another directory; a file does not decide which other files are opened.",
        "name that checkpoint yourself, if you trust it",
    ),
}
