"""The reasons of a decision: the columns that contributed most to its score, in words.

A decision against the card holder (review, decline) is given what pointed towards fraud and nothing else, strongest
first: that is what a notice of adverse action must state, and the order in which an analyst looks. An approval is given
what weighed most either way, so that one sees what spoke for it and against it. One reason for each code, its strongest
column: three windows of one count would be one reason told three times. A row's reasons depend on that row alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from bentos.wordings import Text, wording
from feature_repo.kernels import compiler

jit = compiler(Path(__file__).resolve().parent, "reasons")

TOP = 3
DIGITS = 4


class Reason(msgspec.Struct, frozen=True, gc=False):
    """One reason. `contribution` is the feature's own, in the explainer's output; above 0 it points towards fraud."""

    code: str
    feature: str
    contribution: float
    text: str


@dataclass(frozen=True)
class Reasons:
    """Puts contributions to the scores of one model into words; everything that a row doesn't change is made once."""

    columns: tuple[str, ...]
    codes: tuple[str, ...]
    texts: tuple[Text, ...]
    families: npt.NDArray[np.int64]
    reads: npt.NDArray[np.int64]

    @classmethod
    def of(cls, columns: Sequence[str]) -> Reasons:
        """The reasons that a model with these columns can give."""
        worded = [wording(column, columns) for column in columns]
        codes = [each.code for each in worded]
        return cls(
            columns=tuple(columns),
            codes=tuple(codes),
            texts=tuple(each.text for each in worded),
            families=np.array([codes.index(code) for code in codes], np.int64),
            reads=np.array([columns.index(each.reads) for each in worded], np.int64),
        )

    def give(
        self,
        contributions: npt.NDArray[np.float64],
        vectors: npt.NDArray[np.float32],
        adverse: Sequence[bool],
        top: int = TOP,
    ) -> list[list[Reason]]:
        """At most `top` reasons for each row, the strongest first; `adverse` tells the rows not approved.

        `contributions` and `vectors` have shape (rows, columns).
        """
        picked = np.empty((len(contributions), top), np.int64)
        _rank(np.ascontiguousarray(contributions), np.asarray(adverse, np.bool_), self.families, picked)
        rows = np.arange(len(picked))[:, None]
        values = vectors[rows, self.reads[picked]].tolist()
        weights = contributions[rows, picked].tolist()
        columns, codes, texts = self.columns, self.codes, self.texts
        return [
            [
                Reason(codes[place], columns[place], round(weight, DIGITS), texts[place](value))
                for place, weight, value in zip(*row, strict=True)
                if place >= 0
            ]
            for row in zip(picked.tolist(), weights, values, strict=True)
        ]


@jit
def _rank(contributions: Any, adverse: Any, families: Any, picked: Any) -> None:
    """The strongest columns of each row, one of a family; -1 where there is none. Of equals the first column."""
    rows, columns = contributions.shape
    taken = np.zeros(columns, np.bool_)
    for row in range(rows):
        taken[:] = False
        for place in range(picked.shape[1]):
            best, most = -1, 0.0
            for column in range(columns):
                weight = contributions[row, column]
                strength = weight if adverse[row] else abs(weight)
                if strength > most and not taken[families[column]]:
                    best, most = column, strength
            picked[row, place] = best
            if best >= 0:
                taken[families[best]] = True
