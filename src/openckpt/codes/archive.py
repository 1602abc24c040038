"""Codes of the area `archive`."""

from openckpt.codes.code import Code

CODES: dict[str, Code] = {}
