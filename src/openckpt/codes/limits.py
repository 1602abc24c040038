"""Codes of the area `limits`."""

from openckpt.codes.code import Code

CODES: dict[str, Code] = {
    "limits.exceeded": Code(
        "error",
        "The file asks for more memory or work than openckpt grants an unknown file: it is damaged, hostile or extraordinary.",
        "if you trust this file, raise the limit that the message names",
    ),
    "limits.no-memory": Code(
        "error",
        "What has to be read in one piece is larger than the memory that this process may take. The file may be honest, or "
        "state a size for which no machine has memory.",
        "use a machine with more memory, or allow the process more of it (ulimit -v, the container's limit)",
    ),
}
