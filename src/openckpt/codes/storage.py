"""Codes of the area `storage`: what can go wrong between a name and its bytes."""

from openckpt.codes.code import Code

CODES: dict[str, Code] = {
    "storage.short-read": Code(
        "error",
        "The file is shorter than it was when it was opened, or than its index says: it is still being written, was truncated, "
        "or a copy broke off.",
        "openckpt doctor {dir}",
    ),
    "storage.changed": Code(
        "error",
        "Another program replaced this file while it was being read (a trainer that saves over its own checkpoint does that).",
        "open it again; to read a run that is still training, name a step that will not be overwritten",
    ),
    "storage.refused": Code(
        "error",
        "The operating system refused this path: no permission, no room left, a read-only or broken disk or network mount, or not a "
        "file at all.",
        "ls -ld {dir} {path}",
    ),
    "storage.unreadable": Code(
        "error",
        "The system refused to read this file: permissions, a directory of that name, a dying disk or a lost network mount.",
        "ls -l {path}",
    ),
}
