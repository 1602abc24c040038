"""Codes of the area `training`: live programs and checkpoints that do not fit each other."""

from openckpt.codes.code import Code

CODES: dict[str, Code] = {
    "training.not-trackable": Code(
        "error",
        "This object holds nothing that a checkpoint could store: no arrays, numbers, text or containers of them.",
        "leave it out, give its attribute a leading underscore, or give it state_dict and load_state_dict",
    ),
    "training.no-such-part": Code(
        "error",
        "The part of the checkpoint that select names is not there.",
        "look at the names: openckpt tree {path}",
    ),
    "training.torn": Code(
        "error",
        "The checkpoint has different values for what is one object in the program: target = params, before the two drift apart.",
        "give each its own object (copy.deepcopy, jax.tree.map(jnp.copy, ...)), or take the first with partial=True",
    ),
    "training.incomplete": Code(
        "error",
        "The program has values that the checkpoint does not have.",
        "pass what was saved, name the part with select=, or leave the others as they are with partial=True",
    ),
    "training.no-value": Code(
        "error",
        "A meta tensor, a jax.ShapeDtypeStruct, a donated JAX array: it has a shape and a type, and no values to save.",
        "restore a checkpoint into it first, or give the Checkpoint what has values: ckpt.state = new_state after a step",
    ),
    "training.parameter-elsewhere": Code(
        "error",
        "An optimizer changes a parameter that the Checkpoint does not have: nothing would say whose state that is.",
        "give the Checkpoint the model too: openckpt.Checkpoint(model=model, optimizer=optimizer)",
    ),
    "training.not-plain": Code(
        "error",
        "Python state is stored as JSON and arrays, and never pickled; this value is neither.",
        "leave it out of the state, or turn it into numbers, text, lists and dicts",
    ),
    "training.same-name": Code(
        "error",
        "Two keys of one dict have the same name as text, so a checkpoint cannot tell them apart.",
        "rename one of the keys",
    ),
    "training.bad-state": Code(
        "error",
        "The Python state in the checkpoint is not what openckpt writes: another program wrote it.",
        "openckpt show {path}",
    ),
    "training.missing-keys": Code(
        "error",
        "The object graph names tensors that the checkpoint does not have: it was edited, or is a mixture of two.",
        "openckpt doctor {path}",
    ),
    "training.mismatch": Code(
        "error",
        "Stored values have other shapes or types than the variables they belong to: the model was built with other sizes.",
        "build the program as it was saved, pass cast=True where only float widths differ, or select= the parts that fit",
    ),
    "training.nothing-matched": Code(
        "error",
        "Not one variable of the program has its value in this checkpoint: the objects hang under other names.",
        "name the objects as the checkpoint does: openckpt tree {path}",
    ),
    "training.no-graph": Code(
        "error",
        "This checkpoint was written by name (tf.train.Saver, openckpt.save): it has values, but not the objects they belong to.",
        "read it with openckpt.load, or restore it by name with openckpt.Saver",
    ),
    "training.not-matched": Code(
        "error",
        "Program and checkpoint do not hold the same objects.",
        "openckpt tree {path}",
    ),
    "training.no-checkpoint": Code(
        "error",
        "The restore was given None, as latest_checkpoint gives where there is no checkpoint yet.",
        "check the path of the directory: openckpt find .",
    ),
    "training.cannot-replace": Code(
        "error",
        "A value that cannot be changed in place lies in an object that cannot be given a new one.",
        "put it into a dict, a list or an attribute",
    ),
    "training.exists": Code(
        "error",
        "A checkpoint of this number exists, and this program did not write it: its counter began again at 0.",
        "restore the latest checkpoint first, which continues its counter, or save into another directory",
    ),
    "training.nothing-frozen": Code(
        "error",
        "The save was told that a part of the program never changes, and the program has no part of that name.",
        "spell it as the keys are spelled, from the root: openckpt show {path}",
    ),
    "training.forked": Code(
        "error",
        "A forked process asks for a save that its parent has begun: only the parent has the thread that writes it.",
        "wait for the save before the fork: handle.wait()",
    ),
    "training.nested": Code(
        "error",
        "A signal handler saves or restores what the program under it was about to save or restore: the values are in between.",
        "use openckpt.save_on_preemption, which waits for the end of it, or set a flag and save where a step ends",
    ),
    "training.busy-run": Code(
        "error",
        "Another process or thread is saving into this directory at this moment; only one of them may.",
        "give each run a directory of its own; of several processes of one run let one write: is_primary=rank == 0",
    ),
    "training.overtaken": Code(
        "error",
        "The manifest names a checkpoint that this manager neither found nor wrote: two programs save into one directory.",
        "stop the other program, or make a new CheckpointManager, which goes on behind what is there",
    ),
    "training.no-such-step": Code(
        "error",
        "There is no whole checkpoint of this path or number to be kept.",
        "openckpt find {path}",
    ),
    "training.no-variable": Code(
        "error",
        "A Saver keeps one value under one name; this object is made of several, or holds none.",
        "give its variables one by one, or save the whole object with openckpt.Checkpoint",
    ),
    "training.missing-names": Code(
        "error",
        "Names of the program are not in the checkpoint: it was saved under other names, or by another program.",
        "openckpt ls {path}",
    ),
    "training.inside-fit": Code(
        "error",
        "While Keras trains on JAX, the variables of a model have no values; the model itself can fetch them.",
        "save the model, or an object that holds it, in place of its variables or its optimizer alone",
    ),
}
