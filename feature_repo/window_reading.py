"""The compiled part of reading states: where each begins among many, which are whole, which lack events."""

from __future__ import annotations

from typing import Any

import numpy as np

from feature_repo.window_jit import jit
from feature_repo.window_kernels import HEADER


@jit
def place_states(words: Any, lengths: Any, magic: int, width: int) -> tuple[Any, int]:
    """Where states lie that stand one behind another: `lengths` in bytes, -1 for none; starts are -1 likewise.

    Also the place of the first state that is not plain, whole and under this magic; -1 where all are.
    """
    starts = np.full(lengths.shape[0], -1, np.int64)
    other = -1
    position = 0
    for place in range(lengths.shape[0]):
        if lengths[place] >= 0:
            size = lengths[place] // 8
            starts[place] = position
            plain = lengths[place] % 8 == 0 and size >= HEADER and position + size <= words.shape[0]
            plain = plain and words[position] == magic and HEADER + width * words[position + 1] == size
            if not plain and other < 0:
                other = place
            position += size
    return starts, other


@jit
def lacking_states(words: Any, starts: Any, at: Any, longest: int, step: int, sealed_magic: int, slack: int) -> Any:
    """Which rows' states cannot answer for the window of length `longest` (its edge rounded to `step`) at `at`."""
    found = np.zeros(starts.shape[0], np.bool_)
    for row in range(starts.shape[0]):
        s = starts[row]
        if s >= 0:
            edge = at[row] - longest
            if step > 0:
                edge -= edge % step
            found[row] = words[s + 3] >= edge
            if words[s] == sealed_magic and at[row] < words[s + HEADER + words[s + 1] - 1] - slack:
                found[row] = True
    return found
