"""Codes of the area `safetensors`."""

from openckpt.codes.code import Code

CODES: dict[str, Code] = {}
