"""Codes of the area `run`."""

from openckpt.codes.code import Code

CODES: dict[str, Code] = {}
