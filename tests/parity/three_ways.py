"""The same question asked of the online store, of history, and of SQL; and every difference between the answers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from feature_repo.context import AT
from feature_repo.historical import entity_rows
from feature_repo.vector import FEATURE_SERVICE, columns
from feature_repo.windows import WindowSpec, spec_of_view
from tests.parity.oracle import brute_force, differences

REQUEST = ["card_id", "merchant_id", "amount", "merchant_category", "country", "channel"]


def microseconds(instants: pd.Series) -> npt.NDArray[np.int64]:
    return np.asarray(instants.astype("datetime64[us, UTC]").astype("int64"), np.int64)


def specs(store: Any, names: Iterable[str]) -> dict[str, WindowSpec]:
    return {name: spec_of_view(store.get_stream_feature_view(name)) for name in names}


def online(store: Any, questions: pd.DataFrame) -> pd.DataFrame:
    """Every feature of the service for each question (a payment with `timestamp`), from the online store."""
    service = store.get_feature_service(FEATURE_SERVICE)
    rows = []
    for at, row in zip(microseconds(questions["timestamp"]), questions[REQUEST].to_dict("records"), strict=True):
        rows.append({name: None if value != value else value for name, value in row.items()} | {AT: int(at)})
    found = store.get_online_features(service, rows).to_dict()
    return pd.DataFrame({name: np.array(found[name], np.float64) for name in columns(service)})


def offline(store: Any, questions: pd.DataFrame) -> pd.DataFrame:
    """The same from history, as of each question's instant and with what was known by then."""
    service = store.get_feature_service(FEATURE_SERVICE)
    job = store.get_historical_features(entity_rows(questions), service, filter_by_created_timestamp=True)
    found = job.to_arrow()
    return pd.DataFrame({name: found[name].to_numpy().astype(np.float64) for name in columns(service)})


def unequal(left: pd.DataFrame, right: pd.DataFrame) -> list[str]:
    """Where two tables of features are not the same, bit by bit; null equals null."""
    assert list(left.columns) == list(right.columns)
    assert len(left) == len(right)
    found = []
    for name in left:
        a, b = left[name].to_numpy(), right[name].to_numpy()
        for row in np.flatnonzero(
            (a.view(np.int64) != b.view(np.int64)) & ~(np.isnan(a) & np.isnan(b)) & ~((a == 0) & (b == 0))
        ):
            found.append(f"{name}[{row}]: online {a[row]!r}, offline {b[row]!r}")
    return found


def disagreements(
    found: pd.DataFrame, views: Mapping[str, WindowSpec], events: Mapping[str, pd.DataFrame], questions: pd.DataFrame
) -> list[str]:
    """Where windowed features differ from SQL over `events` of each view (its columns, `ts`, `created` in µs)."""
    at = microseconds(questions["timestamp"])
    wrong = []
    for view, spec in views.items():
        asked = questions[[spec.join_key]].assign(at=at, known=at)
        wrong += differences(spec, brute_force(spec, events[view], asked), found[list(spec.names)])
    return wrong


def payment_events(payments: pd.DataFrame) -> pd.DataFrame:
    """Payments as the events of the velocity views."""
    return payments.assign(ts=microseconds(payments["timestamp"]), created=microseconds(payments["ingested_at"]))


def label_events(labels: pd.DataFrame) -> pd.DataFrame:
    """Labels as the events of the merchants' risk."""
    return labels.assign(ts=microseconds(labels["known_at"]), created=microseconds(labels["published_at"]))
