"""Member names are data: they are made into plain relative paths here, and never handed to the file system.

    ./run//ckpt.index      run/ckpt.index        as tar writes it
    ../run/ckpt.index      run/ckpt.index        odd: climbs out; tar strips it on extraction, so do we
    /home/me/ckpt.index    home/me/ckpt.index    odd: absolute
    C:\\run\\ckpt.index      run/ckpt.index        odd: drive letter (the backslash separates in zip files only)

An *odd* name is one that a trusting tool could write outside the folder it unpacks to; the doctor mentions it.
"""

from __future__ import annotations


def harmless_path(name: str, *, backslash_separates: bool) -> tuple[str, bool]:
    """Return ``(path, odd)`` of a member name; the path is "" when nothing is left of it."""
    if backslash_separates and "\\" in name:
        name = name.replace("\\", "/")
    odd = name.startswith("/") or "\0" in name
    if not odd and "//" not in name and "." not in name and ":" not in name:
        return name.rstrip("/"), False  # nothing that could need work; most names contain a dot and go on
    parts: list[str] = []
    for part in name.split("/"):
        if part == "..":
            odd = True
            if parts:
                parts.pop()
        elif part not in ("", "."):
            if not parts and len(part) == 2 and part[1] == ":" and part[0].isascii() and part[0].isalpha():
                odd = True
            else:
                parts.append(part)
    return "/".join(parts), odd


def decode_name(raw: bytes) -> str:
    """Return the text of a tar name: UTF-8, other bytes by surrogateescape."""
    return raw.decode("utf-8", "surrogateescape")


def decode_zip_name(raw: bytes, *, utf8: bool) -> str:
    """Return the text of a zip name.

    Without the UTF-8 flag the standard says code page 437, but many tools write UTF-8 without saying so.
    """
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return raw.decode("utf-8", "surrogateescape") if utf8 else raw.decode("cp437")
