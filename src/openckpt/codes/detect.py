"""Codes of the area `detect`."""

from openckpt.codes.code import Code

CODES: dict[str, Code] = {}
