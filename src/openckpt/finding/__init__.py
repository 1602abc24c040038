"""Walk a tree and report every checkpoint in it: `find` and `FoundCheckpoint`.

Built on `openckpt.opening`, which groups one directory; here directories become a tree, archives are looked into, and each
checkpoint is told apart by run, manifest and layout. Must not import doctor or the command line.
"""

from __future__ import annotations

from openckpt.finding.found import FoundCheckpoint
from openckpt.finding.walking import find, survey

__all__ = ["FoundCheckpoint", "find", "survey"]
