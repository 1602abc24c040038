"""Codes of the area `bundle`."""

from openckpt.codes.code import Code

CODES: dict[str, Code] = {}
