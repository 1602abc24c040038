"""Codes of the area `torch`."""

from openckpt.codes.code import Code

_CAUSE = "This is a PyTorch file. Its structure is a pickle, and reading a pickle runs code that the file chose, so openckpt does not open it."

CODES: dict[str, Code] = {
    "torch.zip": Code("error", _CAUSE, None),
    "torch.pickle": Code("error", _CAUSE, None),
    "torch.tar": Code("error", _CAUSE, None),
}
