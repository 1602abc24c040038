"""Codes of the area `keras`."""

from openckpt.codes.code import Code

CODES: dict[str, Code] = {}
