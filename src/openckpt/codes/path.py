"""Codes of the area `path`."""

from openckpt.codes.code import Code

CODES: dict[str, Code] = {}
