"""The compiler of the window maths' inner loops, and where its results are kept.

numba renews what it keeps of a function when that function's own file changes. A kernel that calls into another file
would go on with the old maths there, and give wrong numbers in silence: so every version of the sources has a place of
its own.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import numba
from numba import njit

_HERE = Path(__file__).resolve().parent


def _version() -> str:
    sources = sorted(_HERE.glob("window*.py"))
    return hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()[:16]


def _place() -> None:
    if "NUMBA_CACHE_DIR" in os.environ:
        numba.config.CACHE_DIR = str(Path(os.environ["NUMBA_CACHE_DIR"]) / _version())
        return
    folder = _HERE / "__pycache__"
    try:
        folder.mkdir(exist_ok=True)
    except OSError:
        return  # an installation that nobody may write to: numba keeps to the user's own folder
    if os.access(folder, os.W_OK):
        numba.config.CACHE_DIR = str(folder / f"window-{_version()}")


_place()

jit = njit(cache=True, nogil=True)
"""The decorator of a kernel: compiled on first use, kept on disk, and free of the interpreter's lock while it runs."""
