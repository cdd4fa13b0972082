"""A version's card: what it is for, what it was made from, how good it is and where not, as Markdown and as HTML.

Both say the same, from the same evidence. Source: Mitchell et al., Model Cards for Model Reporting, 2019.
"""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from feature_repo.vector import FALLBACK_SERVICE
from training.card_page import Card, Section
from training.comparison import TITLES, percent, shown, three
from training.costs import NEVER
from training.evidence import CALIBRATION, Judged
from training.fitting import Fitted
from training.measured import IN_SEGMENTS
from training.segments import LEAST_FRAUDS

MARKDOWN_FILE, HTML_FILE = "card.md", "card.html"

FEW_FRAUDS = 100
"""Below so many frauds on the test days the card warns: intervals are wide then, and thresholds rest on little."""


def card(judged: Judged, model_name: str, pictures: Mapping[str, bytes] | None = None) -> Card:
    """The card of a model with all it was judged by."""
    fitted = judged.fitted
    frauds = int(judged.rows["is_fraud"].sum())
    summary = (
        f"{fitted.name} over {len(fitted.contract.columns)} features of '{fitted.contract.feature_service}', trained "
        f"{judged.protocol.train_start:%F} to {judged.protocol.train_end:%F}. On {len(judged.rows):,} later payments "
        f"({frauds:,} frauds): AUC-ROC {three(fitted.intervals['auc_roc'])}, average precision "
        f"{three(fitted.intervals['average_precision'])}; its decisions save "
        f"{percent(fitted.intervals['cost_saved_share'])} of what approving all costs."
    )
    of_days = (_metrics, _segments, _decisions, _thresholds, _calibration, _limits, _lineage)
    sections = (_use(fitted), _data(judged), *(section(judged) for section in of_days))
    return Card(f"Model card: {model_name}", summary, sections, pictures or {})


def parameters_of(fitted: Fitted) -> dict[str, str]:
    """The classifier's own parameters, and what it was told beside them."""
    model = fitted.bare
    classifier = model.steps[-1][1] if hasattr(model, "steps") else model
    plain = {k: v for k, v in classifier.get_params().items() if v is None or isinstance(v, str | int | float | bool)}
    return {"algorithm": fitted.name} | {k: str(v) for k, v in (plain | dict(fitted.parameters)).items()}


def _use(fitted: Fitted) -> Section:
    where = (
        "It decides while the stored features are away, on what the payment says of itself."
        if fitted.contract.feature_service == FALLBACK_SERVICE
        else "It decides together with the features that the platform keeps of card and merchant; without them it must "
        "not be asked."
    )
    return Section(
        "Intended use",
        (
            "Scores card payments as they are made: the probability that a payment is fraud, and from it approve, "
            f"review or decline. {where}",
            "Not for judging people or merchants, and not for payments of another market, kind of card or period than "
            "it was trained on without being judged there first.",
        ),
    )


def _data(judged: Judged) -> Section:
    p, table = judged.protocol, {}
    for each in judged.data:
        share = each.frauds / each.rows
        table[each.context] = [
            f"{each.begin:%F} to {each.end:%F}",
            f"{each.rows:,}",
            f"{each.frauds:,}",
            f"{share:.2%}",
            each.digest[:16],
        ]
    frame = pd.DataFrame.from_dict(
        table, orient="index", columns=["days (UTC)", "payments", "frauds", "share", "digest"]
    )
    return Section(
        f"Data and protocol: {judged.data[0].name.split(' ')[0]}",
        (
            f"Trained on {p.train_days} days; {p.delay_days} days later their labels are known and the model may go "
            f"live; tested on the {p.test_days} days from then. Cards known to be compromised by a test day are left "
            "out of it.",
            "Chosen, calibrated and given its thresholds one fold earlier, by a twin fitted there in the same way: the "
            "test days were looked at once.",
        ),
        frame,
    )


def _metrics(judged: Judged) -> Section:
    found = judged.fitted.intervals
    table = {TITLES[name]: [shown(name, found[name])] for name in TITLES}
    frame = pd.DataFrame.from_dict(table, orient="index", columns=["value [95 % interval]"])
    text = (
        "Intervals are bootstrapped over whole cards. Cost saved is for all test days, in the currency of the amounts."
    )
    return Section("Metrics on the test days", (text,), frame)


def _segments(judged: Judged) -> Section:
    rows = {}
    for name, found in judged.segments.items():
        figures = [shown(metric, found.figures[metric]) if found.figures else "–" for metric in IN_SEGMENTS]
        rows[name] = [f"{found.rows:,}", f"{found.frauds:,}", *figures]
    frame = pd.DataFrame.from_dict(
        rows, orient="index", columns=["payments", "frauds", *(TITLES[m] for m in IN_SEGMENTS)]
    )
    text = f"A segment of fewer than {LEAST_FRAUDS} frauds has its counts alone."
    return Section("Segments on the test days", (text,), frame) if rows else Section("Segments", ("None were asked.",))


def _decisions(judged: Judged) -> Section:
    contract, matrix = judged.fitted.contract, judged.terms.matrix
    capacity = judged.terms.capacity(judged.rows)
    said = {
        "declined, risk high": contract.decline_from,
        "reviewed, risk medium": contract.review_from,
        "risk medium though approved": contract.medium_from,
    }
    cuts = [[what, "never" if cut is None or cut >= NEVER else f"{cut:.6g}"] for what, cut in said.items()]
    costs = [
        ["a fraud that passes", f"its amount less {matrix.recovered:.0%}, and {matrix.chargeback_fee:g}"],
        ["a review", f"{matrix.review_cost:g}; finds {matrix.review_caught:.0%} of the frauds"],
        ["an honest payment reviewed", f"{matrix.review_insult:g} more"],
        ["an honest payment declined", f"{matrix.insult_cost:g} and {matrix.insult_share:.0%} of its amount"],
        ["reviews a day, at most", f"{capacity:.0f}"],
    ]
    frame = pd.DataFrame([*cuts, *costs], columns=["", "from a score of / cost"]).set_index("")
    text = "The thresholds are those that would have saved most on the earlier fold's test days, at these costs."
    return Section("Decisions", (text,), frame)


def _thresholds(judged: Judged) -> Section:
    shown = judged.fitted.by_threshold
    columns = {
        "score from": shown["threshold"].map("{:.4g}".format),
        "stopped a day": shown["stopped_per_day"].map("{:,.1f}".format),
        "frauds caught": shown["frauds_caught"].map("{:.1%}".format),
        "of their amount": shown["amount_caught"].map("{:.1%}".format),
        "precision": shown["precision"].map("{:.1%}".format),
        "false positives": shown["false_positive_rate"].map("{:.3%}".format),
        "saved if reviewed": shown["saved_if_reviewed"].map("{:,.0f}".format),
        "saved if declined": shown["saved_if_declined"].map("{:,.0f}".format),
        "people enough": shown["within_capacity"].map(lambda enough: "yes" if enough else "no"),
    }
    return Section("What each threshold catches and costs (test days)", (), pd.DataFrame(columns))


def _calibration(judged: Judged) -> Section:
    rows = {when: [f"{value:.5f}" for value in found.values()] for when, found in judged.calibration.items()}
    frame = pd.DataFrame.from_dict(rows, orient="index", columns=[TITLES[k] for k in judged.calibration["after"]])
    text = f"Method: {CALIBRATION}, learnt on the earlier fold's test days. Lower is better."
    return Section("Calibration on the test days", (text,), frame)


def _limits(judged: Judged) -> Section:
    frauds = int(judged.rows["is_fraud"].sum())
    thin = [name for name, found in judged.segments.items() if not found.figures]
    said = [
        "Fraud changes with those who commit it: figures of past days promise nothing of later ones.",
        "A label is what was disputed or confirmed within the label delay; a fraud nobody noticed counts as honest.",
    ]
    if frauds < FEW_FRAUDS:
        said.append(
            f"Only {frauds} frauds are in the test days: the intervals are wide, the thresholds rest on little."
        )
    if thin:
        said.append(f"Too few frauds to say anything of: {', '.join(thin)}.")
    if judged.fitted.contract.review_from >= NEVER:
        said.append("At these costs no threshold saved anything on the earlier fold: every payment is approved.")
    return Section("Limits", tuple(said))


def _lineage(judged: Judged) -> Section:
    fitted = judged.fitted
    rows = {
        "code": judged.revision,
        "feature service": f"{fitted.contract.feature_service} ({len(fitted.contract.columns)} columns)",
        "parameters": ", ".join(f"{k}={v}" for k, v in parameters_of(fitted).items() if v not in ("None", "nan")),
        "ONNX against the model": f"largest difference {fitted.parity.largest_difference:.1e}, {fitted.parity.flips} "
        f"decisions differ on {fitted.parity.rows:,} rows",
        "time to score": f"{fitted.speed.one_row_us:.0f} µs, of 1,000 {fitted.speed.row_of_many_us:.1f} µs each",
        "fitted in": f"{fitted.fit_seconds:.1f} s",
    }
    return Section("Lineage", (), pd.DataFrame.from_dict(rows, orient="index", columns=["what"]))
