"""The calibration behind a model's margin, as its graph's metadata states it: what a margin is worth as a probability.

Reasons attribute the margin; the curve rises throughout, so what raises the one raises the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import msgspec
import numpy as np
import numpy.typing as npt

from bentos.trees import NotExplainable

OPERATORS = ("Gather", "Sub", "Relu", "Mul", "CumSum", "Gather", "Mul", "Add", "Add", "Mul", "Softmax")
"""What the curve is made of in the graph, behind whatever gives the margin."""

Reals = npt.NDArray[np.float64]


class Calibration(msgspec.Struct, frozen=True):
    """Log-odds = intercept + slope × margin + the sum of each bend × max(0, margin - its knot)."""

    margin: Literal["log-odds", "probability"]
    intercept: float
    slope: float
    knots: list[float]
    bends: list[float]

    @classmethod
    def read(cls, text: str, operators: Sequence[str]) -> Calibration:
        """Raises `NotExplainable` for metadata of another form, or a graph that ends otherwise than they say."""
        try:
            written = msgspec.json.decode(text, type=cls)
        except msgspec.MsgspecError as error:
            raise NotExplainable(f"The graph's calibration cannot be read: {error}.") from None
        ends = tuple(operators[-len(OPERATORS) :])
        if len(written.knots) != len(written.bends) or ends != OPERATORS:
            raise NotExplainable(
                f"The graph states a calibration of {len(written.knots)} knots and {len(written.bends)} bends, and "
                f"ends in {', '.join(ends)}; must have as many of both, and end in its operators."
            )
        return written

    def probabilities(self, margins: Reals) -> Reals:
        """The probabilities, shape (n,), of margins of that shape."""
        over = np.maximum(margins[:, None] - np.array(self.knots), 0.0) @ np.array(self.bends)
        log_odds = self.intercept + self.slope * margins + over
        return np.asarray(1.0 / (1.0 + np.exp(-log_odds)), np.float64)
