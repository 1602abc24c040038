"""Codes of the area `manifest`: the text file named ``checkpoint``."""

from openckpt.codes.code import Code

_BY_SCAN = "open the checkpoint by its own name, or the directory, which is then searched: openckpt find {dir}"

CODES: dict[str, Code] = {
    "manifest.empty": Code(
        "error",
        "The manifest was created but never written: a save was interrupted, or the disk was full.",
        _BY_SCAN,
    ),
    "manifest.not-utf8": Code(
        "error",
        "The manifest should be text but holds binary data: another file was copied over it, or it is damaged.",
        _BY_SCAN,
    ),
    "manifest.lfs-pointer": Code(
        "error",
        "The repository was cloned without its large files; this is only a pointer to the real file.",
        "git lfs pull",
    ),
    "manifest.not-a-manifest": Code(
        "error",
        "A file of this name is there, but it is something else: an error page, a checkpoint of another program, a renamed file.",
        "openckpt doctor {dir}",
    ),
    "manifest.bad-syntax": Code(
        "error",
        "The manifest starts well and then breaks off or was edited by hand; TensorFlow ignores it as a whole.",
        _BY_SCAN,
    ),
    "manifest.no-model-path": Code(
        "error",
        "The manifest does not say which checkpoint is the newest; TensorFlow stops with an error.",
        _BY_SCAN,
    ),
    "manifest.unknown-field": Code(
        "warning",
        "The manifest has a field that no TensorFlow writes: it was edited by hand or by another tool. TensorFlow ignores the whole file.",
        "remove that line from {path}",
    ),
    "manifest.repeated-field": Code(
        "note",
        "A field that stands once was given twice, usually after an edit by hand; as in TensorFlow the last one holds.",
    ),
    "manifest.odd-escape": Code(
        "warning",
        "A path holds a backslash that was not doubled, as when a Windows path is typed by hand; what follows may be misread.",
        "write every backslash in {path} twice, or use /",
    ),
    "manifest.path-not-utf8": Code(
        "warning",
        "A file name was written in another encoding than UTF-8; TensorFlow ignores such a manifest.",
        _BY_SCAN,
    ),
    "manifest.byte-order-mark": Code(
        "warning",
        "A text editor saved the manifest with a byte order mark; TensorFlow ignores such a manifest.",
        "save {path} again as plain UTF-8",
    ),
    "manifest.timestamp-count": Code(
        "note",
        "The save times do not belong to the listed checkpoints one by one; TensorFlow's manager drops them and starts anew.",
    ),
}
