"""Scoring a file: which payments, without their labels, and what stands beside them; `make newcomer` does it live."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pandas as pd
import pytest

from feature_repo.schema import HISTORY_SCHEMA
from feature_repo.settings import Settings
from monitoring.supervision import free_ports
from training import score
from training.datasets import table

FILE = """id,when,pan,shop,eur,bad
2,2024-05-02 10:00:00,007,s2,5.5,0
1,2024-05-01 10:00:00,007,s1,12,1
"""
MAPPING = """transaction_id = "id"
timestamp = "when"
card_id = "pan"
merchant_id = "shop"
amount = "eur"
is_fraud = "chargeback"
assume_utc = true
"""


@pytest.fixture
def payments(tmp_path: Path) -> pd.DataFrame:
    """Of a file whose mapping names a label that it lacks, as that of a labelled file does."""
    path = tmp_path / "new.csv"
    path.write_text(FILE)
    path.with_name("new.mapping.toml").write_text(MAPPING)
    found, profiles = table.load_unlabelled(path)
    assert profiles is None
    return found


def test_payments_come_in_order_and_without_a_label(payments: pd.DataFrame):
    assert list(payments) == HISTORY_SCHEMA.names
    assert payments["transaction_id"].tolist() == ["1", "2"]
    assert payments["amount"].tolist() == [12.0, 5.5]


def test_a_file_without_a_needed_column_is_refused(tmp_path: Path):
    path = tmp_path / "new.csv"
    path.write_text("id,when\n1,2024-05-01 10:00:00\n")
    with pytest.raises(table.InvalidMapping, match="'card_id' is required and has no column"):
        table.load_unlabelled(path)


def test_only_payments_after_history_are_scored(payments: pd.DataFrame):
    ends = datetime(2024, 5, 1, 10, tzinfo=UTC)
    assert score.after(payments, ends, Path("new.csv"))["transaction_id"].tolist() == ["2"]


def test_a_file_of_the_past_is_refused_with_both_instants(payments: pd.DataFrame):
    with pytest.raises(
        score.NothingToScore, match=r"2 payments end at 2024-05-02 10.*history, which ends at 2024-06-01"
    ):
        score.after(payments, datetime(2024, 6, 1, tzinfo=UTC), Path("new.csv"))


def test_each_answer_stands_beside_its_payment(payments: pd.DataFrame):
    reasons = [{"code": "AMOUNT"}, {"code": "FOREIGN"}]
    told = {"risk_level": "low", "model_version": "1", "degraded": False}
    answers = [
        {"transaction_id": "2", "fraud_probability": 0.2, "decision": "review", "reasons": reasons, **told},
        {"transaction_id": "1", "fraud_probability": 0.1, "decision": "approve", "reasons": [], **told},
    ]
    rows = score.beside(payments, answers)
    assert list(rows) == [*score.ASKED, *score.ANSWERED]
    assert rows["fraud_probability"].tolist() == [0.1, 0.2]
    assert rows["reasons"].tolist() == ["", "AMOUNT FOREIGN"]


def test_without_a_platform_nothing_is_scored(tmp_path: Path):
    [port] = free_ports(1)
    with pytest.raises(score.NothingToScore, match="make up"):
        score.score(Settings(home=tmp_path, port=port), tmp_path / "new.csv")
