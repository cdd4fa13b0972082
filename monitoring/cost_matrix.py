"""What a decision costs, fraud or not: the one matrix that thresholds are set by and live decisions are judged by.

Every sum is in the currency of the amounts.
Source: Bahnsen et al., Example-Dependent Cost-Sensitive Decision Trees, 2015 (the loss of a fraud is its own amount).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from feature_repo.settings import Settings

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class CostMatrix:
    """What a decision costs, fraud or not. Approving a genuine payment costs nothing, declining a fraud neither.

    A fraud that passes costs its amount but for the share `recovered`, and the fee of its chargeback. A review costs
    `review_cost`, finds `review_caught` of the frauds it sees, and annoys who paid honestly by `review_insult`. An
    honest payment declined costs `insult_cost` and the share `insult_share` of its amount.
    """

    chargeback_fee: float
    recovered: float
    review_cost: float
    review_caught: float
    review_insult: float
    insult_cost: float
    insult_share: float

    @classmethod
    def of(cls, current: Settings) -> CostMatrix:
        """The matrix of the settings (`FRAUD_CHARGEBACK_FEE` and so on)."""
        return cls(**{name: getattr(current, name) for name in cls.__dataclass_fields__})

    def approved(self, rows: pd.DataFrame) -> Floats:
        """What approving each payment costs; `rows` has `amount` and `is_fraud`."""
        amount, fraud = amount_and_fraud(rows)
        return np.where(fraud, (1 - self.recovered) * amount + self.chargeback_fee, 0.0)

    def reviewed(self, rows: pd.DataFrame) -> Floats:
        """What having each payment looked at costs."""
        _, fraud = amount_and_fraud(rows)
        return self.review_cost + np.where(fraud, (1 - self.review_caught) * self.approved(rows), self.review_insult)

    def declined(self, rows: pd.DataFrame) -> Floats:
        """What declining each payment costs."""
        amount, fraud = amount_and_fraud(rows)
        return np.where(fraud, 0.0, self.insult_cost + self.insult_share * amount)


def amount_and_fraud(rows: pd.DataFrame) -> tuple[Floats, npt.NDArray[np.bool_]]:
    """The amounts of payments, and which were fraud."""
    return rows["amount"].to_numpy(np.float64), rows["is_fraud"].to_numpy() == 1
