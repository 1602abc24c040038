"""Codes of the area `savedmodel`."""

from openckpt.codes.code import Code

CODES: dict[str, Code] = {}
