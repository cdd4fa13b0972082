"""A challenger, who it must hold its own against, and the payments they are both judged on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import pandas as pd

from feature_repo.settings import Settings
from training.costs import Cuts, Terms
from training.graphs import BrokenVersion, Graph, Scores, Vectors, chosen
from training.intervals import Interval, paired_each
from training.measured import decisions
from training.verdicts import MissingEvidence, NothingToLookAt, Number
from training.weighted import METRICS
from training.window import Window

REPEATS = 500

SAVED = "cost_saved_share"
"""The share of what approving all would cost that a model's decisions save."""


@dataclass(frozen=True)
class Case:
    """What the gates look at. `columns` are the feature service's, in its order; `rival` is the champion in service,
    or the model over the request alone where there is none; None where there is neither.
    """

    challenger: Graph
    rival: Graph | None
    role: Literal["champion", "fallback", "nobody"]
    columns: tuple[str, ...]
    feature_service: str
    found: Window | str
    """The window, or why there is none."""
    settings: Settings
    claims: tuple[str, ...] = ()
    """Metrics that the challenger is said to be better in."""

    @property
    def window(self) -> Window:
        """Raises `NothingToLookAt` where there is none."""
        if isinstance(self.found, str):
            raise NothingToLookAt("there is no window")
        return self.found

    @property
    def rows(self) -> pd.DataFrame:
        """The window's payments; raises `NothingToLookAt`, also where they are all fraud or none."""
        rows = self.window.data.rows
        if rows["is_fraud"].nunique() < 2:
            raise NothingToLookAt("the window's payments are all of one class")
        return rows

    @cached_property
    def vectors(self) -> Vectors:
        """The window's vectors as the challenger takes them."""
        data = self.window.data
        return chosen(data.vectors, data.columns, self.challenger.contract.columns)

    @cached_property
    def raw(self) -> Scores:
        """Whatever the challenger gives for them; raises `NothingToLookAt` where it gives nothing."""
        try:
            return self.challenger.score(self.vectors)
        except (BrokenVersion, MissingEvidence) as error:
            raise NothingToLookAt(str(error)) from None

    @cached_property
    def scores(self) -> Scores:
        """The challenger's probabilities; raises `NothingToLookAt` where some are none."""
        if not ((self.raw >= 0) & (self.raw <= 1)).all():
            raise NothingToLookAt("the challenger gives scores that are no probabilities")
        return self.raw

    @cached_property
    def rival_scores(self) -> Scores:
        """The rival's probabilities; raises `MissingEvidence` where it cannot be asked."""
        if self.rival is None:
            raise MissingEvidence("there is neither a champion nor a model over the request alone to compare with")
        try:
            data = self.window.data
            scores = self.rival.score(chosen(data.vectors, data.columns, self.rival.contract.columns))
        except BrokenVersion as error:
            raise MissingEvidence(f"the {self.role}, {self.rival}, cannot be asked: {error}") from None
        if not np.isfinite(scores).all():
            raise MissingEvidence(f"the {self.role}, {self.rival}, gives scores that are no numbers")
        return scores

    @property
    def terms(self) -> Terms:
        """What decisions cost and how many payments people can look at, by the settings."""
        return Terms.of(self.settings)

    @cached_property
    def cuts(self) -> Cuts:
        """The challenger's thresholds, as the service would use them."""
        return thresholds(self.challenger, self.settings)

    @cached_property
    def differences(self) -> Mapping[str, Interval]:
        """Challenger less rival in each metric, and in the share of losses that their decisions save."""
        scores = self.rival_scores
        assert self.rival is not None
        theirs, ours = (
            decisions(cuts, self.terms.matrix)[SAVED] for cuts in (thresholds(self.rival, self.settings), self.cuts)
        )
        return paired_each(self.rows, scores, self.scores, {**METRICS, SAVED: (theirs, ours)}, REPEATS)


def thresholds(graph: Graph, current: Settings) -> Cuts:
    """A version's review and decline thresholds; the setting's review threshold wins."""
    own, contract = current.review_threshold, graph.contract
    return contract.review_from if own is None else own, contract.decline_from


Finding = tuple[Literal["pass", "block", "missing"], str, dict[str, Number]]
"""A gate's word, its evidence in words, and the numbers in it."""

Look = Callable[[Case], Finding]
