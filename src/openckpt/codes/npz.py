"""Codes of the area `npz`."""

from openckpt.codes.code import Code

CODES: dict[str, Code] = {}
