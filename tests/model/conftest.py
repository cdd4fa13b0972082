"""A small history in an offline store, for whatever reads the past."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import pandas as pd
import pytest

from feature_repo.settings import Settings
from feature_repo.store import apply
from training import backfill, batch
from training.datasets import synthetic
from training.generate import generate


@dataclass(frozen=True)
class Past:
    """A store with payments, labels and profiles of 60 days; read it, and write into a copy of its home."""

    settings: Settings
    store: Any
    payments: pd.DataFrame
    begin: datetime
    end: datetime


@pytest.fixture(scope="session")
def past(tmp_path_factory: pytest.TempPathFactory, mlflow_server: str) -> Past:
    current = Settings(home=tmp_path_factory.mktemp("past"), mlflow_url=mlflow_server, model_name="past-under-test")
    data = synthetic.adapt(generate(9_000, seed=3, days=60, fraud_share=0.03))  # frauds in each week of so few
    payments = data.transactions
    begin = payments["timestamp"].min().floor("D").to_pydatetime()
    end = begin + timedelta(days=60)
    store = apply(current)
    backfill.load(payments, current, "history")
    batch.publish(current, batch.midnights(begin + timedelta(days=1), end), data.profiles, "history")
    return Past(current, store, payments, begin, end)
