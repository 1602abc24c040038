"""Codes of the area `table`."""

from openckpt.codes.code import Code

CODES: dict[str, Code] = {}
