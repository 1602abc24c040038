"""Codes of the area `v1`."""

from openckpt.codes.code import Code

CODES: dict[str, Code] = {}
