"""Codes of the area `manifest`."""

from openckpt.codes.code import Code

CODES: dict[str, Code] = {}
