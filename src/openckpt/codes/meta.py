"""Codes of the area `meta`."""

from openckpt.codes.code import Code

CODES: dict[str, Code] = {}
