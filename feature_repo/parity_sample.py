"""The evidence a registered model carries: a few vectors and the scores that its graph gave for them in training.

Whoever loads the graph later must find the same scores. The file lies beside the graph, as JSON; null is NaN.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
import numpy.typing as npt

PARITY_FILE = "parity.json"

TOLERANCE = 1e-5
"""Largest difference of a probability between two machines that run the same graph in float32."""

ROWS = 24


class InvalidSample(ValueError):
    """A file that is no sample of vectors and scores."""


class _Document(msgspec.Struct):
    columns: list[str]
    vectors: list[list[float | None]]
    probabilities: list[float]


@dataclass(frozen=True)
class ParitySample:
    """`vectors` is float32 (rows, columns), null as NaN; `probabilities` float64 (rows,)."""

    columns: tuple[str, ...]
    vectors: npt.NDArray[np.float32]
    probabilities: npt.NDArray[np.float64]

    def dumps(self) -> bytes:
        """The sample as JSON; every float32 is written so that it reads back bit for bit."""
        rows = [[None if np.isnan(value) else float(value) for value in row] for row in self.vectors]
        return msgspec.json.encode(_Document(list(self.columns), rows, self.probabilities.tolist()))


def loads(text: bytes) -> ParitySample:
    """The inverse of `dumps`; raises `InvalidSample`, also where there are no rows: they would prove nothing."""
    try:
        found = msgspec.json.decode(text, type=_Document)
    except msgspec.DecodeError as error:  # a ValidationError is one
        raise InvalidSample(f"{PARITY_FILE} cannot be read: {error}.") from None
    widths = {len(row) for row in found.vectors}
    if widths != {len(found.columns)} or len(found.probabilities) != len(found.vectors):
        raise InvalidSample(
            f"{PARITY_FILE} has {len(found.vectors)} vectors of {sorted(widths)} values for {len(found.columns)} "
            f"columns, and {len(found.probabilities)} scores; must have one value for each column and one score for "
            "each of at least one vector. Register the model through training."
        )
    vectors = np.array(found.vectors, np.float64).astype(np.float32)
    return ParitySample(tuple(found.columns), vectors, np.array(found.probabilities, np.float64))


def chosen_rows(scores: npt.NDArray[np.float64], rows: int = ROWS) -> Sequence[int]:
    """Places of at most `rows` scores, evenly spread over their ranks, the lowest and the highest among them."""
    ranked = np.argsort(scores, kind="stable")
    places = np.linspace(0, len(scores) - 1, min(rows, len(scores))).round().astype(int)
    return [int(place) for place in np.unique(ranked[places])]
