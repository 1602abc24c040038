"""Codes of the area `meta`: the .meta files beside TF1 checkpoints. The tensors do not depend on them."""

from openckpt.codes.code import Code

CODES: dict[str, Code] = {
    "meta.empty": Code(
        "warning",
        "The .meta file was created but never written. Only programs that rebuild the graph from it need it; the tensors are not in it.",
        "fetch that file again, or go on without it: openckpt ls {prefix}",
    ),
    "meta.lfs-pointer": Code(
        "warning",
        "The repository was cloned without its large files; this is only a pointer to the real file.",
        "git lfs pull",
    ),
    "meta.does-not-parse": Code(
        "warning",
        "The .meta file is damaged, cut short, or something else. Only programs that rebuild the graph from it need it; the tensors are not in it.",
        "fetch that file again, or go on without it: openckpt ls {prefix}",
    ),
}
