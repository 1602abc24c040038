"""Codes of the area `savedmodel`: the directory of an exported model."""

from openckpt.codes.code import Code

CODES: dict[str, Code] = {
    "savedmodel.absent": Code(
        "error",
        "The directory holds no saved_model.pb, so it is no SavedModel, or not all of it was copied.",
        "openckpt find {path}",
    ),
    "savedmodel.empty": Code(
        "error",
        "The export was interrupted, or the disk was full: the model's graph was never written.",
        "export the model again; the variables can be read as a checkpoint: openckpt ls {dir}",
    ),
    "savedmodel.lfs-pointer": Code(
        "error",
        "The repository was cloned without its large files; this is only a pointer to the real file.",
        "git lfs pull",
    ),
    "savedmodel.does-not-parse": Code(
        "error",
        "The model's graph is damaged, cut short, or something else; TensorFlow cannot load the model.",
        "fetch that file again; the variables can be read as a checkpoint: openckpt ls {dir}",
    ),
    "savedmodel.no-meta-graph": Code(
        "error",
        "The file is a SavedModel without any model in it: an export that failed halfway.",
        "export the model again; the variables can be read as a checkpoint: openckpt ls {dir}",
    ),
    "savedmodel.schema-version": Code(
        "warning",
        "The file states a version of the SavedModel format that no TensorFlow has used so far.",
        "openckpt ls {dir}",
    ),
    "savedmodel.variables-missing": Code(
        "error",
        "The model was copied without its folder variables/, which holds the values of all its weights.",
        "copy the folder variables/ from where the model came from",
    ),
}
