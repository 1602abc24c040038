"""Codes of the area `graph`: the object graph of a TF2 checkpoint."""

from openckpt.codes.code import Code

CODES: dict[str, Code] = {
    "graph.not-a-string": Code(
        "error",
        "The tensor that should hold the object graph is something else: the key was overwritten by another program.",
        "openckpt ls {path}",
    ),
    "graph.does-not-parse": Code(
        "error",
        "The bytes of the object graph are not the message they should be: they were damaged before they were saved, or made by another program.",
        "the tensors can be read by their keys all the same: openckpt ls {path}",
    ),
    "graph.empty": Code(
        "error",
        "The object graph has not even a root: the program that wrote it stopped halfway.",
        "the tensors can be read by their keys all the same: openckpt ls {path}",
    ),
    "graph.edge-out-of-range": Code(
        "error",
        "An object of the graph names a child or an optimizer slot that is not in the graph: the graph was cut or damaged.",
        "the tensors can be read by their keys all the same: openckpt ls {path}",
    ),
    "graph.key-absent": Code(
        "error",
        "The object graph was saved together with tensors that are not in the checkpoint any more, because keys were removed or two saves were mixed.",
        "openckpt ls {path}",
    ),
}
