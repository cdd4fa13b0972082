"""What a million cards weigh in Redis: states as the job makes them, written by the job's own writer.

Each card has paid `PER_DAY` times a day on average for as long as its state reaches back, and, on a second line, for a
week. Generated in chunks: the generator holds the events of one chunk and no state that was written.
"""

from __future__ import annotations

from typing import Any, cast

import numpy as np
from redis import Redis

from feature_repo.online_states import OnlineStates
from feature_repo.store import feature_store
from feature_repo.window_batch import update_many
from feature_repo.window_state import Events, to_us
from feature_repo.windows import DAY, WindowSpec, spec_of_view
from tests.load.apart import MB
from tests.load.payments import DELAY, DISTINCT_MERCHANTS, PER_DAY, Ints, card_id, last_hour
from tests.load.rig import platform
from tests.load.sizes import Sizes

VIEW = "card_velocity"
WEEK = 7 * DAY

BUSIEST = 200_000
"""Payments of the card by which the bound of a state is shown; more than a state holds."""

APART = 250_000
"""µs between two of them: all lie within the exact windows, where nothing can be summed up."""

BATCH = 4_000


def measure(sizes: Sizes) -> dict[str, Any]:
    """MB that Redis uses for all states of the cards' view, and KB for the busiest card there could be."""
    with platform() as current:
        client = Redis.from_url(current.redis_url)
        client.config_set("appendonly", "no")  # what is measured is memory, and gigabytes needn't reach the disk
        store = feature_store(current)
        view = store.get_stream_feature_view(VIEW)
        spec = spec_of_view(view)
        writer = OnlineStates(client, store.config, view, spec)
        whole = _filled(client, writer, spec, sizes, spec.retention)
        week = _filled(client, writer, spec, sizes, WEEK)
        return {
            "cards": sizes.state_cards,
            **whole,
            "days": round(spec.retention / DAY, 2),
            "week_mb": week["mb"],
            "busiest_card_kb": _busiest(client, writer, spec),
            "busiest_card_events": BUSIEST,
        }


def _filled(client: Redis, writer: OnlineStates, spec: WindowSpec, sizes: Sizes, span: int) -> dict[str, float]:
    """Write the states of all cards, each with payments over `span` (µs), into an empty Redis."""
    client.flushall()
    before = _memory(client)
    events = 0
    for begin in range(0, sizes.state_cards, sizes.state_chunk):
        names = [card_id(number) for number in range(begin, min(begin + sizes.state_chunk, sizes.state_cards))]
        draw = np.random.default_rng(begin)
        counts = np.maximum(draw.poisson(PER_DAY * span / DAY, len(names)), 1)
        end = to_us(last_hour())
        at = draw.integers(end - span, end, counts.sum())
        made = update_many(spec, [None] * len(names), counts, _events(draw, spec, at, sizes.state_cards))
        writer.write(names, made.states, made.stamps)
        events += made.added
    after = _memory(client)
    if client.dbsize() != sizes.state_cards:
        raise AssertionError(f"{sizes.state_cards} cards were written, Redis has {client.dbsize()} keys.")
    return {
        "mb": round((after["used_memory"] - before["used_memory"]) / MB, 1),
        "rss_mb": round(after["used_memory_rss"] / MB, 1),
        "events_per_card": round(events / sizes.state_cards, 1),
    }


def _events(draw: np.random.Generator, spec: WindowSpec, at: Ints, cards: int) -> Events:
    n = len(at)
    merchants = draw.integers(1, 2**62, max(int(cards * DISTINCT_MERCHANTS), 10))
    return Events(
        ts=at,
        ids=draw.integers(1, 2**62, n),
        values=np.round(draw.lognormal(3.2, 1.1, (len(spec.values), n)), 2),
        distinct=merchants[draw.integers(0, len(merchants), (len(spec.distinct), n))],
        ingest=at + draw.integers(0, DELAY, n),
    )


def _busiest(client: Redis, writer: OnlineStates, spec: WindowSpec) -> float:
    """KB in Redis of one card with `BUSIEST` payments inside its windows, taken in as a stream would."""
    client.flushall()
    draw = np.random.default_rng(0)
    stored: list[Any] = [None]
    begin = to_us(last_hour()) - BUSIEST * APART
    for first in range(0, BUSIEST, BATCH):
        at = begin + np.arange(first, first + BATCH) * APART
        made = update_many(spec, stored, np.array([BATCH]), _events(draw, spec, at, BATCH))
        stored = list(made.states)
    writer.write([card_id(0)], made.states, made.stamps)
    keys: Any = client.keys("*")
    sizes = [cast(int, client.memory_usage(key, samples=0)) for key in keys]
    return round(sum(sizes) / 1_000, 1)


def _memory(client: Redis) -> dict[str, int]:
    found: Any = client.info("memory")
    return found
