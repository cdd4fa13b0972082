"""The columns' effects of a linear model, as its graph's metadata states them: exact Shapley values in log-odds.

A column's contribution is what its value adds to the log-odds, less what it adds on average over the training rows; a
code's indicator columns count together as the one column that they were.
"""

from __future__ import annotations

from dataclasses import dataclass

import msgspec
import numpy as np
import numpy.typing as npt

from bentos.trees import NotExplainable


class Numbers(msgspec.Struct, frozen=True):
    """Plain columns, side by side: where null, `unknown` stands in; effect = slope × (x - mean)."""

    column: list[int]
    unknown: list[float]
    mean: list[float]
    slope: list[float]


class Code(msgspec.Struct, frozen=True):
    """One column whose numbers are names: the effect of each value, and of any other."""

    column: int
    values: list[float]
    effects: list[float]
    otherwise: float
    unknown: float


class Written(msgspec.Struct, frozen=True):
    """The metadata's form."""

    base: float
    numbers: Numbers
    codes: list[Code]


@dataclass(frozen=True)
class Effects:
    """A linear model, ready to be attributed: (unknown, mean, slope) of the plain columns as rows, and the codes."""

    base: float
    plain: npt.NDArray[np.int64]
    numbers: npt.NDArray[np.float64]
    codes: tuple[tuple[Code, npt.NDArray[np.float64], npt.NDArray[np.float64]], ...]

    @classmethod
    def read(cls, text: str, columns: int) -> Effects:
        """Raises `NotExplainable` for metadata of another form, or of another number of columns."""
        try:
            written = msgspec.json.decode(text, type=Written)
            of = written.numbers
            plain, numbers = np.array(of.column, np.int64), np.array([of.unknown, of.mean, of.slope], np.float64)
        except (msgspec.MsgspecError, ValueError) as error:
            raise NotExplainable(f"The graph's effects of its columns cannot be read: {error}.") from None
        named = sorted([*of.column, *(code.column for code in written.codes)])
        uneven = [code.column for code in written.codes if not 0 < len(code.values) == len(code.effects)]
        if named != list(range(columns)) or numbers.shape[1] != len(plain) or uneven:
            raise NotExplainable(
                f"The graph states the effects of columns {named}, of {uneven} in part; must be all {columns} columns."
            )
        codes = tuple((code, np.array(code.values), np.array(code.effects)) for code in written.codes)
        return cls(written.base, plain, numbers, codes)

    def contributions(self, vectors: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        """float64 (rows, columns) of float32 vectors of that shape."""
        out = np.empty(vectors.shape)
        unknown, mean, slope = self.numbers
        x = vectors[:, self.plain].astype(np.float64)
        out[:, self.plain] = (np.where(np.isnan(x), unknown, x) - mean) * slope
        for code, values, effects in self.codes:
            value = vectors[:, code.column].astype(np.float64)
            found = np.where(np.isnan(value), code.unknown, value)[:, None] == values
            out[:, code.column] = np.where(found.any(axis=1), effects[found.argmax(axis=1)], code.otherwise)
        return out
