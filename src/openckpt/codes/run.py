"""Codes of the area `run`: what the files of one directory say about each other, beyond the bytes of any one checkpoint."""

from openckpt.codes.code import Code

CODES: dict[str, Code] = {
    # Which checkpoint is meant.
    "run.latest": Code(
        "note",
        "A directory is not a checkpoint. openckpt and tf.train.load_checkpoint take its newest one; Checkpoint.restore and "
        "Saver.restore of TensorFlow want the prefix.",
        "pass the prefix: {path}",
    ),
    "run.below": Code(
        "note",
        "The checkpoints lie in directories below the one that was named; each was looked at on its own.",
    ),
    "run.not-entered": Code(
        "note",
        "A directory with checkpoints of its own is looked at alone; those further down have reports of their own.",
        "openckpt doctor {path}",
    ),
    "run.archives": Code(
        "note",
        "Archives that lie in a directory are only looked into when they are named.",
        "openckpt doctor {path}",
    ),
    "run.too-many": Code(
        "note",
        "There are more checkpoints here than one report looks at.",
        "openckpt find {path}",
    ),
    "run.none": Code(
        "error",
        "Nothing in this directory is a checkpoint: it is the wrong directory, or the download or copy brought none of the files.",
        "openckpt find {dir}",
    ),
    "run.none-whole": Code(
        "error",
        "There are checkpoint files here, but no checkpoint is whole.",
    ),
    # The manifest against the files.
    "run.no-manifest": Code(
        "note",
        "There is no manifest (the file called checkpoint), so TensorFlow's latest_checkpoint finds nothing here. "
        "Model-zoo downloads and exports usually come without one.",
    ),
    "run.newest-missing": Code(
        "error",
        "The manifest names a newest checkpoint whose files are not here: they were deleted, or not copied with the rest. "
        "TensorFlow's latest_checkpoint answers None and does not fall back to older ones.",
        "fetch its files from where the training ran, or look for another step: openckpt find {dir}",
    ),
    "run.newest-incomplete": Code(
        "error",
        "The manifest names a newest checkpoint of which files are missing or damaged; TensorFlow takes it and fails.",
        "fetch what is missing from where the training ran, or look for another step: openckpt find {dir}",
    ),
    "run.older-missing": Code(
        "note",
        "Older checkpoints that the manifest still lists are gone: a clean-up removed them, or they were not copied.",
    ),
    "run.moved": Code(
        "warning",
        "The manifest holds absolute paths of another place: the directory was moved or copied after the training. The files lie "
        "here, but TensorFlow's latest_checkpoint looks for them there.",
    ),
    "run.elsewhere": Code(
        "warning",
        "The manifest names a newest checkpoint in another directory, and it exists there: TensorFlow loads that one without a "
        "word, not the files beside the manifest.",
        "openckpt doctor {path}",
    ),
    "run.leaves-directory": Code(
        "note",
        "The manifest leads out of its own directory and back in: it was written from another working directory. It holds only "
        "as long as the directory keeps its name.",
    ),
    "run.newer-unlisted": Code(
        "warning",
        "Complete checkpoints of later steps lie here that the manifest does not list: the manifest was not copied with them, a "
        "save broke off before it was written, or two trainings share the directory. TensorFlow restores the older one.",
        "openckpt doctor {path}",
    ),
    "run.older-unlisted": Code(
        "note",
        "Older checkpoints lie here that the manifest does not list; a training that was told to keep them, or was restarted, "
        "leaves them behind.",
    ),
    "run.manifest-renamed": Code(
        "error",
        "The manifest must be called checkpoint, without a suffix; browsers, mail programs and Windows add one. TensorFlow "
        "does not see it under this name.",
    ),
    "run.manifest-elsewhere-named": Code(
        "note",
        "A manifest under a name of its own (Saver.save has latest_filename for that); TensorFlow reads it only when told the name.",
    ),
    "run.manifest-is-prefix": Code(
        "note",
        "The prefix of this checkpoint is the name of the manifest, so one name stands for both. openckpt takes the directory or "
        "NAME.index for the checkpoint.",
    ),
    # What lies beside.
    "run.leftover-parts": Code(
        "warning",
        "A save that was interrupted left its working directory (a save that is still running has one too).",
        "when no training is writing here: rm -r {path}",
    ),
    "run.leftover-file": Code(
        "warning",
        "A writer that was interrupted left a temporary file behind; nothing reads it.",
        "when no training is writing here: rm {path}",
    ),
    "run.saving": Code(
        "note",
        "A program is saving this prefix with openckpt at the moment, or updating the manifest: the lock is held. What was there "
        "before stays whole, and the new checkpoint counts from the moment in which it is committed.",
    ),
    "run.broken-off": Code(
        "note",
        "A save by openckpt was killed, or the machine went down: its lock is there and nobody holds it. Nothing that was saved "
        "before is harmed, and nothing reads what is left; the next save in this directory removes it.",
        "save again, which removes it: openckpt find {dir}",
    ),
    "run.alias": Code(
        "note",
        "A link to a data file of this checkpoint, under a name by which safetensors programs open it. It is the same file, not a "
        "second checkpoint, and takes no room.",
    ),
    "run.stale-shards": Code(
        "note",
        "Data files of another shard count lie beside the ones that the index names: left from an earlier save with another "
        "number of shards, or by a crash right after a save over it. Nothing reads them.",
        "rm {path}",
    ),
    "run.meta-only": Code(
        "error",
        "Only the graph (.meta) is here; the file with the values is missing. The graph alone restores no weight.",
        "fetch the missing file from where the training ran",
    ),
    "run.no-saved-model": Code(
        "warning",
        "The directory has the other files of a SavedModel but not saved_model.pb, its graph: TensorFlow cannot load it as a model. "
        "The variables can be read as a checkpoint.",
        "fetch {path} from where the model was exported",
    ),
    "run.same-name": Code(
        "note",
        "A file and a checkpoint prefix share this name. The name alone opens the file; NAME.index opens the checkpoint.",
    ),
    "run.special-characters": Code(
        "note",
        "TensorFlow writes but cannot read a path with [, ] or \\ in it: it takes the name for a pattern and finds nothing. "
        "openckpt reads it literally.",
        "to use it with TensorFlow, copy it to a path without these characters",
    ),
    "run.same-bytes": Code(
        "note", "Two steps hold the same bytes: nothing was trained between them, or one is a copy."
    ),
    # Shards against the index.
    "run.index-missing": Code(
        "error",
        "The data files are here but the index, which says what lies where in them, is not: it was not copied, or the save "
        "was interrupted before its last step.",
        "fetch {path} from where the training ran",
    ),
    "run.index-recoverable": Code(
        "error",
        "The save was interrupted right before its last step: the data is in place, and the index of each part still lies in the "
        "working directory.",
    ),
    "run.index-unreadable": Code(
        "error",
        "What carries the name of the index is no file that can be read.",
        "ls -ld {path}",
    ),
    "run.shards-renamed": Code(
        "error",
        "The data files carry another shard count in their names than the index states: somebody renamed them, or the index is "
        "of another save.",
    ),
    "run.compressed": Code(
        "error",
        "The file was compressed and left, or renamed back, under its old name.",
    ),
    "run.shared-damage": Code(
        "warning",
        "Delta saves share data files between steps, and this one is damaged: what these steps have in it is lost in all of them.",
        "restore a step that does not have this file: openckpt find .",
    ),
    "run.mixed-steps": Code(
        "error",
        "Index and data come from different saves: one of them was copied or overwritten without the other.",
        "copy index and data of one step together",
    ),
    "run.mixed-models": Code(
        "warning",
        "Two trainings of different models saved into one directory under one name, or the model was changed on the way.",
        "move one of the two to a directory of its own",
    ),
    "run.grown": Code(
        "note",
        "A training adds tensors as it goes: an optimizer makes its slots with the first step.",
    ),
    # What TensorFlow will and will not do with it.
    "run.name-based": Code(
        "note",
        "There is no object graph in it: the file is of TensorFlow 1, of a Saver, or of openckpt.save. Checkpoint.restore then matches variables by name "
        "only, skips silently what it does not find, and says so only when asked (assert_consumed).",
    ),
    "run.other-format": Code(
        "note",
        "This is not a TensorFlow checkpoint of its own: TensorFlow's checkpoint functions answer 'not an sstable' for it.",
        "openckpt ls {path}",
    ),
    "run.member-given": Code(
        "note",
        "The path names one file of the checkpoint. TensorFlow wants the prefix: given NAME.index it loads nothing without a word, "
        "given a data file or the manifest it answers 'Unable to open table file'.",
        "pass the prefix: {prefix}",
    ),
    "run.written-by": Code("note", "The graph beside the checkpoint says which TensorFlow wrote it."),
    "run.variables-not-saved": Code(
        "note",
        "The program had more variables than it saved (a Saver of some of them, or a checkpoint with shards missing); restoring "
        "leaves those at their initial values.",
        "openckpt ls {prefix}",
    ),
    "run.no-meta-graph": Code(
        "note",
        "There is no .meta file beside it, so tf.train.import_meta_graph has nothing to load; the weights do not need it.",
    ),
    "run.optimizer-without-weights": Code(
        "warning",
        "The optimizer keeps state for weights that the file does not hold: the model had layers that were not tracked when it was "
        "saved (a list or dict of layers in a custom class). Loading it leaves those weights random.",
        "save the model again with a Keras release that tracks these layers, from the program that still holds them",
    ),
}
