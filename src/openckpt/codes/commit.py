"""Codes of the area `commit`: two writers at one place."""

from openckpt.codes.code import Code

CODES: dict[str, Code] = {
    "commit.locked": Code(
        "error",
        "Another program, or another thread of this one, is saving this prefix right now. One wins; this one changed nothing.",
        "let one process write: wait for the other save, give each writer a prefix of its own, or stop the second program",
    ),
    "commit.exists": Code(
        "error",
        "A file of this name is there already, and nothing is replaced unless it is asked for.",
        "choose another prefix, or allow it: overwrite=True, on the command line --overwrite",
    ),
}
