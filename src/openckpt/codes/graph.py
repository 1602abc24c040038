"""Codes of the area `graph`."""

from openckpt.codes.code import Code

CODES: dict[str, Code] = {}
