"""Codes of the area `path`: from what a user typed to a checkpoint."""

from openckpt.codes.code import Code

CODES: dict[str, Code] = {
    "path.not-a-checkpoint": Code(
        "error",
        "The content of this file is nothing that openckpt reads: another kind of file, or one that is damaged from its first bytes on.",
        "openckpt find {dir}",
    ),
    "path.renamed-index": Code(
        "error",
        "Somebody renamed the index of a checkpoint; its data files can only be found under the name of the index.",
        "mv {path} {path}.index, and the data files along with it",
    ),
}
