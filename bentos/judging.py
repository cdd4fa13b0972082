"""What becomes of a batch's features: scores, decisions and reasons, each payment by the best model that can be had.

Without features, or where its model fails on a payment, the fallback model decides on the payment alone. One payment's
trouble is not another's: what fails for a batch is tried for each of its payments.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Protocol

from bentos.answers import DegradedCause
from bentos.challenger_guard import ChallengerGuard
from bentos.errors import Part, Unavailable
from bentos.features import FeatureReader, FeatureRows, Floats32
from bentos.lineup import Lineup, score
from bentos.model import LoadedModel
from bentos.payments import Asked
from bentos.reasons import Reason
from bentos.scoring import Scored, decide
from monitoring.control_group import ControlGroup

logger = logging.getLogger("bentoml.service.tollgate.models")

Judged = Scored | Exception


class Reasons(Protocol):
    """Why, for rows that one model has scored."""

    def __call__(self, model: LoadedModel, vectors: Floats32, decisions: Sequence[str]) -> list[list[Reason]]: ...


class NoFeatures(Exception):
    """The cause of an answer that is not given: no stored features, and no model that could do without."""


class Judge:
    """`payment_alone` reads what a payment says itself.

    `review_from` is the amount from which a payment without stored features is at least reviewed; `control` lets some
    would-be declines pass, of those that were decided on the full input.
    """

    def __init__(
        self,
        payment_alone: FeatureReader,
        guard: ChallengerGuard,
        reasons: Reasons,
        review_from: float,
        control: ControlGroup | None = None,
    ) -> None:
        self._payment_alone, self._guard, self._reasons = payment_alone, guard, reasons
        self._review_from, self._control = review_from, control

    def judge(self, lineup: Lineup, payments: Sequence[Asked], rows: FeatureRows | None) -> list[Judged]:
        """Decide each payment; `Unavailable` in the place of one that no model can decide."""
        if rows is None:
            return self._without_features(lineup, payments, "features_unavailable")
        ids = [one.payment.transaction_id for one in payments]
        try:
            scores = score(lineup, ids, rows.vectors, self._guard)
        except Exception as error:
            if len(payments) > 1:
                return [self.judge(lineup, [one], rows.row(place))[0] for place, one in enumerate(payments)]
            logger.error("Payment '%s' could not be scored: %s", payments[0].payment.transaction_id, error)
            return self._without_features(lineup, payments, "model_failed")
        models = scores.models()
        usual: DegradedCause | None = "stale_features" if rows.stale else None
        causes: list[DegradedCause | None] = ["incomplete_features" if lacks else usual for lacks in rows.incomplete]
        return list(self._scored(payments, rows.vectors, rows.ages, scores.probabilities.tolist(), models, causes))

    def _without_features(self, lineup: Lineup, payments: Sequence[Asked], cause: DegradedCause) -> list[Judged]:
        model = lineup.fallback
        if model is None:
            part: Part = "feature_store" if cause == "features_unavailable" else "model"
            return [Unavailable(part, NoFeatures("no fallback model is registered"))] * len(payments)
        try:
            rows = self._payment_alone.read(payments)
            scores = model.score(rows.vectors).tolist()
        except Exception as error:
            if len(payments) > 1:
                return [self._without_features(lineup, [one], cause)[0] for one in payments]
            logger.error("Payment '%s': the fallback gave no score: %s", payments[0].payment.transaction_id, error)
            return [Unavailable("model", error)]
        n = len(payments)
        return list(self._scored(payments, rows.vectors, [None] * n, scores, [model] * n, [cause] * n))

    def _scored(
        self,
        payments: Sequence[Asked],
        vectors: Floats32,
        ages: Sequence[float | None],
        probabilities: Sequence[float],
        models: Sequence[LoadedModel],
        causes: Sequence[DegradedCause | None],
    ) -> list[Scored]:
        made = []
        for place, (asked, age, probability, model, cause) in enumerate(
            zip(payments, ages, probabilities, models, causes, strict=True)
        ):
            decision, risk = decide(model.contract, probability, cause, asked.payment.amount, self._review_from)
            made.append(Scored(asked, vectors[place], model, age, probability, decision, risk, cause, []))
        self._explain(made, vectors)
        if self._control is not None:
            self._let_pass(self._control, made)
        return made

    @staticmethod
    def _let_pass(control: ControlGroup, made: Sequence[Scored]) -> None:
        """Approve what is chosen of the declines; their risk and reasons stay the model's."""
        for one in made:
            paid = one.asked.payment
            if one.decision == "decline" and one.degraded_cause is None:
                one.control_group = control.lets_pass(paid.transaction_id, paid.amount)
                if one.control_group:
                    one.decision = "approve"

    def _explain(self, made: list[Scored], vectors: Floats32) -> None:
        for model in {id(one.model): one.model for one in made}.values():
            places = [place for place, one in enumerate(made) if one.model is model]
            of_model = vectors if len(places) == len(made) else vectors[places]
            try:
                found = self._reasons(model, of_model, [made[place].decision for place in places])
            except Exception:  # a payment is not refused for want of words
                logger.exception("Model '%s' version %s: no reasons for a batch.", model.name, model.version)
                continue
            for place, reasons in zip(places, found, strict=True):
                made[place].reasons = reasons
