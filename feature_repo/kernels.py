"""The compiler of numeric inner loops, and where its results are kept.

numba renews what it keeps of a function when that function's own file changes. A kernel that calls into another file
would go on with the old maths there, and give wrong numbers in silence: so every version of a family of sources has a
place of its own.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba
from numba import njit


def compiler(folder: Path, family: str) -> Callable[[Callable[..., Any]], Any]:
    """The decorator of a kernel in one of the files `family*.py` of `folder`, whose kernels may call each other.

    A kernel is compiled on first use, kept on disk, and free of the interpreter's lock while it runs.
    """
    place = _place(folder, family)

    def jit(function: Callable[..., Any]) -> Any:
        before = numba.config.CACHE_DIR
        numba.config.CACHE_DIR = before if place is None else str(place)
        try:
            return njit(cache=True, nogil=True)(function)
        finally:
            numba.config.CACHE_DIR = before

    return jit


def _place(folder: Path, family: str) -> Path | None:
    sources = [Path(__file__), *sorted(folder.glob(f"{family}*.py"))]
    version = hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()[:16]
    if "NUMBA_CACHE_DIR" in os.environ:
        return Path(os.environ["NUMBA_CACHE_DIR"]) / f"{family}-{version}"
    kept = folder / "__pycache__"
    try:
        kept.mkdir(exist_ok=True)
    except OSError:
        return None  # an installation that nobody may write to: numba keeps to the user's own folder
    return kept / f"{family}-{version}" if os.access(kept, os.W_OK) else None
