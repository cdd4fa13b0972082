"""The decorator of the window maths' kernels: they are one family, compiled anew when any of its files changes."""

from __future__ import annotations

from pathlib import Path

from feature_repo.kernels import compiler

jit = compiler(Path(__file__).resolve().parent, "window")
"""See `kernels.compiler`."""
