"""Codes of the area `limits`."""

from openckpt.codes.code import Code

CODES: dict[str, Code] = {
    "limits.exceeded": Code(
        "error",
        "The file asks for more memory or work than openckpt grants an unknown file: it is damaged, hostile or extraordinary.",
        "if you trust this file, raise the limit that the message names",
    ),
}
