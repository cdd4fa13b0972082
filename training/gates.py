"""The gates on the way to the champion's seat, in their order, and the verdict that they make together.

Invariant: a gate that cannot say `pass` says why and what to do; what raises in the place of its evidence is
`missing`, and missing evidence blocks.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from training import gates_data, gates_graph, gates_scores
from training.case import Case, Look
from training.verdicts import Gate, MissingEvidence, NothingToLookAt, Verdict


@dataclass(frozen=True)
class Rule:
    """A gate as it stands: what it asks, what to do where it does not pass, and the gates it has nothing without."""

    name: str
    look: Look
    asks: str
    way_out: str
    needs: tuple[str, ...] = ()

    def ask(self, case: Case, before: Sequence[Gate]) -> Gate:
        """The gate's word on a case, given those of the gates before it."""
        failed = [one.name for one in before if one.name in self.needs and one.word != "pass"]
        if failed:
            return self._say("untried", f"nothing to look at: {', '.join(failed)}")
        try:
            word, evidence, numbers = self.look(case)
        except NothingToLookAt as nothing:
            return self._say("untried", f"nothing to look at: {nothing}")
        except MissingEvidence as missing:
            return self._say("missing", str(missing))
        made = self._say(word, evidence)
        return made.model_copy(update={"numbers": numbers})

    def _say(self, word: str, evidence: str) -> Gate:
        way_out = self.way_out if word in ("block", "missing") else ""
        return Gate(name=self.name, word=word, rule=self.asks, evidence=evidence, way_out=way_out)  # type: ignore[arg-type]


RETRAIN = "Train again on later days: `python -m training.train`."

RULES = (
    Rule(
        "files",
        gates_graph.files,
        "contract and graph can be read, without a pickle",
        "Register the version by training; nothing can override this.",
    ),
    Rule(
        "columns",
        gates_graph.columns,
        "the feature service's columns, in its order",
        "Train again with the feature service that the code has; nothing can override this.",
        ("files",),
    ),
    Rule(
        "parity",
        gates_graph.parity,
        "the parity sample's scores within 1e-5, no decision differs",
        "Export and register the model again; nothing can override this.",
        ("files",),
    ),
    Rule(
        "outputs",
        gates_graph.outputs,
        "a probability for any payment: the window's, unknown ones, extremes",
        "Let the pipeline impute nulls and end in a probability; nothing can override this.",
        ("files", "columns"),
    ),
    Rule(
        "latency",
        gates_graph.latency,
        "what the service's guard allows a challenger: less than 3 times the champion, or under 1 ms",
        "Fewer or shallower trees; FRAUD_CHALLENGER_SLOW_FACTOR and FRAUD_CHALLENGER_SLOW_FROM are the limits.",
        ("files",),
    ),
    Rule(
        "window",
        gates_data.window,
        f"later than both have seen, labels known, {gates_data.LEAST_PAYMENTS:,} payments, "
        f"{gates_data.LEAST_FRAUDS} frauds on {gates_data.LEAST_CARDS} cards",
        "Wait until more labels are known, or widen the window with --days.",
        ("files",),
    ),
    Rule(
        "drift",
        gates_data.drift,
        "less than 30 % of the columns have moved since training",
        f"Look at what has moved (`python -m monitoring.drift`). {RETRAIN}",
        ("files", "columns"),
    ),
    Rule(
        "leakage",
        gates_data.leakage,
        f"no column alone reaches AUC-ROC {gates_data.KNOWS}, none loses {gates_data.LOST} from training to the window",
        "Find out when the column is known; what is known only afterwards must leave the feature service.",
        ("columns", "window"),
    ),
    Rule(
        "quality",
        gates_scores.quality,
        "surely not worse by more than " + ", ".join(f"{name} {by}" for name, by in gates_scores.MARGINS.items()),
        f"Search again (`python -m training.tune`), or judge on more days. {RETRAIN}",
        ("columns", "window"),
    ),
    Rule(
        "calibration",
        gates_scores.calibration,
        "expects 2/3 to 3/2 of the frauds there were; groups of like scores within 0.3 of their share",
        "Calibrate on a later slice (`training.calibrate`) and set the thresholds anew.",
        ("columns", "window"),
    ),
    Rule(
        "segments",
        gates_scores.collapse,
        "none surely loses 0.1 of AUC-ROC or 0.2 of average precision",
        "Look at the segment in the model card; train with more of its payments.",
        ("columns", "window"),
    ),
    Rule(
        "thresholds",
        gates_scores.thresholds,
        "reviews within 1.5 times the capacity, at most 5 % declined, some fraud stopped",
        "Set the thresholds anew (`training.costs`), or FRAUD_REVIEW_CAPACITY.",
        ("columns", "window"),
    ),
)


def judge(case: Case, champion: str | None, now: datetime) -> Verdict:
    """Ask every gate; `champion` is the version in service."""
    began = time.perf_counter()
    gates: list[Gate] = []
    for rule in RULES:
        gates.append(rule.ask(case, gates))
    return Verdict(
        model=case.challenger.name,
        version=case.challenger.version,
        champion=champion,
        against="nobody" if case.rival is None else f"{case.role}, {case.rival}",
        judged_at=now,
        seconds=time.perf_counter() - began,
        window=None if isinstance(case.found, str) else case.found.card(),
        gates=tuple(gates),
    )
