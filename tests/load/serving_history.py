"""What the online store holds when the service is measured: every view of every card and merchant, from one history.

A state is made of an entity's payments by the stream job's own merge, and written by its own writer.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from redis import Redis

from feature_repo.online_states import OnlineStates
from feature_repo.schema import LABEL_DELAY
from feature_repo.window_batch import update_many
from feature_repo.window_state import Events, code
from feature_repo.windows import DAY, microseconds, spec_of_view
from tests.load.payments import COUNTRIES, Ints, Payments, card_id, merchant_id
from tests.load.serving_population import COUNTRY_SHARES, Population

CHUNK = 2_000
SEED = 11
_SALT = np.uint64(0x9E3779B97F4A7C15)


def fill(store: Any, redis_url: str, population: Population) -> Payments:
    """Put the states of all windowed views and the cards' profiles online; returns the history they are made of."""
    history = drawn(population)
    client = Redis.from_url(redis_url)
    names = {"card": _coded(card_id, population.cards), "merchant": _coded(merchant_id, population.merchants)}
    paid = _Columns(history.ts, history.ingested, history)
    labelled = _labels(history)
    for view_name, entity, events in (
        ("card_velocity", "card", paid),
        ("merchant_velocity", "merchant", paid),
        ("merchant_risk", "merchant", labelled),
    ):
        view = store.get_stream_feature_view(view_name)
        writer = OnlineStates(client, store.config, view, spec_of_view(view))
        _write(writer, spec_of_view(view), entity, events, names)
    client.close()
    store.write_to_online_store("card_profile", _profiles(history, population))
    return history


def drawn(population: Population) -> Payments:
    """The history: payments at random instants of the last days, the latest some seconds ago."""
    count = population.cards * population.per_card
    end = time.time_ns() // 1_000 - 5_000_000
    ts = end - np.sort(np.random.default_rng(SEED).integers(0, population.days * DAY, count))[::-1]
    return population.payments(ts, SEED, "past-")


class _Columns:
    """Events as a view sees them: the instant and the first knowledge of each, and the payment it comes from."""

    def __init__(self, ts: Ints, ingest: Ints, payments: Payments, which: Any = slice(None)) -> None:
        self.ts, self.ingest = ts[which], ingest[which]
        self.ids = ((np.arange(len(ts), dtype=np.uint64) + np.uint64(1)) * _SALT).astype(np.int64)[which]
        self.entity = {"card": payments.card[which], "merchant": payments.merchant[which]}
        self.value = {"amount": payments.amount[which], "is_fraud": payments.fraud[which].astype(np.float64)}


def _labels(history: Payments) -> _Columns:
    """Labels known by now: at the payment's instant and the delay."""
    known = history.ts + microseconds(LABEL_DELAY)
    return _Columns(known, known, history, known <= history.ts[-1])


def _write(writer: OnlineStates, spec: Any, entity: str, events: _Columns, names: Any) -> None:
    order = np.argsort(events.entity[entity], kind="stable")
    owners, counts = np.unique(events.entity[entity], return_counts=True)
    ends = np.cumsum(counts)
    columns = Events(
        ts=events.ts[order],
        ids=events.ids[order],
        values=np.array([events.value[column][order] for column in spec.values]).reshape(-1, len(order)),
        distinct=np.array(
            [_codes(names, column)[events.entity[column.removesuffix("_id")][order]] for column in spec.distinct],
            np.int64,
        ).reshape(-1, len(order)),
        ingest=events.ingest[order],
    )
    for begin in range(0, len(owners), CHUNK):
        part = slice(begin, min(begin + CHUNK, len(owners)))
        inside = slice(ends[begin] - counts[begin], ends[part][-1])
        made = update_many(spec, [None] * len(owners[part]), counts[part], columns.where(inside))
        texts = names[entity][0]
        writer.write([texts[number] for number in owners[part].tolist()], made.states, made.stamps)


def _coded(name: Any, count: int) -> tuple[list[str], Ints]:
    texts = [name(number) for number in range(count)]
    return texts, np.array([code(text) for text in texts], np.int64)


def _codes(names: Any, column: str) -> Ints:
    codes: Ints = names[column.removesuffix("_id")][1]
    return codes


def _profiles(history: Payments, population: Population) -> pd.DataFrame:
    """A profile for every card: a home, an age, an account, and its spending; a few are new and have none."""
    draw, cards = np.random.default_rng(SEED), population.cards
    counts = np.bincount(history.card, minlength=cards)
    sums = np.bincount(history.card, history.amount, minlength=cards)
    squares = np.bincount(history.card, history.amount**2, minlength=cards)
    mean: npt.NDArray[np.float64] = sums / np.maximum(counts, 1)
    midnight = pd.Timestamp.now("UTC").floor("D")
    frame = pd.DataFrame({"card_id": [card_id(number) for number in range(cards)]})
    frame["home_country"] = np.array(COUNTRIES, object)[draw.choice(len(COUNTRIES), cards, p=COUNTRY_SHARES)]
    opened = midnight.value // 1_000 - draw.integers(30 * DAY, 3_650 * DAY, cards)
    frame["account_opened_us"] = opened.astype(np.int64)
    frame["birth_year"] = draw.integers(1940, 2005, cards).astype(np.int64)
    frame["count_90d"] = counts.astype(np.float64)
    frame["amount_mean_90d"] = mean
    frame["amount_std_90d"] = np.sqrt(np.maximum(squares / np.maximum(counts, 1) - mean**2, 0.0))
    frame["as_of"] = midnight
    frame["published_at"] = midnight
    return frame[counts > 0]
