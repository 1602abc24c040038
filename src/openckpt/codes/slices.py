"""Codes of the area `slices`: tensors that were saved in pieces, in both checkpoint versions."""

from openckpt.codes.code import Code

CODES: dict[str, Code] = {
    "slices.bad-key": Code(
        "error",
        "A key of the index that should name one piece of a partitioned tensor is not such a name: the index was changed or damaged.",
        "fetch the checkpoint again, or use another step: openckpt find {dir}",
    ),
    "slices.bad-extent": Code(
        "error",
        "A piece of a partitioned tensor claims a place outside the tensor, or of another rank: the index was changed or damaged.",
        "fetch the checkpoint again, or use another step: openckpt find {dir}",
    ),
    "slices.gap": Code(
        "error",
        "Some elements of a partitioned tensor lie in none of its stored pieces, because a writer did not finish or a part of a merge is missing.",
        "fetch the checkpoint again, or use another step: openckpt find {dir}",
    ),
    "slices.overlap": Code(
        "error",
        "Two stored pieces of a partitioned tensor hold the same elements, so that its value is not defined; two saves were mixed.",
        "use another step: openckpt find {dir}",
    ),
    "slices.tangled": Code(
        "error",
        "A tensor is cut into so many intertwined pieces that no known writer made it; checking them would take too long.",
        "read the pieces one by one, or use another step: openckpt find {dir}",
    ),
}
