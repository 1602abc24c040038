"""Codes of the area `hdf5`."""

from openckpt.codes.code import Code

CODES: dict[str, Code] = {}
