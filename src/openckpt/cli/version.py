"""The text of ``openckpt --version``: our version, Python's, and which optional libraries are there."""

from __future__ import annotations

LIBRARIES = {
    "numpy": "values of tensors",
    "ml_dtypes": "bfloat16, float8, int4",
    "fastcrc": "checksums",
    "cramjam": "Snappy blocks of an index",
    "h5py": ".h5, .hdf5, .keras, .weights.h5",
    "click": "command line",
    "rich": "progress bars",
}
"""Distribution name -> what it is for."""


def version_text() -> str:
    """Return the lines of ``--version``; reads package metadata and imports none of the libraries."""
    import platform
    from importlib.metadata import PackageNotFoundError, version

    import openckpt

    lines = [f"openckpt {openckpt.__version__} (Python {platform.python_version()}, {platform.system()})"]
    for name, purpose in LIBRARIES.items():
        try:
            found = version(name)
        except PackageNotFoundError:
            found = "not found"
        lines.append(f"  {name:<10} {found:<12} {purpose}")
    return "\n".join(lines)
