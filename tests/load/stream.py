"""Events a second from Kafka to readable in Redis, and what a team would use instead, on the same topic.

The clock runs from the moment the job has opened every partition until the broker has its group's position at the end
of each: the job acknowledges a record only when every state that counts it is readable. Start-up and imports are before
that. A short run on a topic of its own goes first, so that nothing is compiled under the clock.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import numpy as np
from redis import Redis

from feature_repo.context import AT
from feature_repo.settings import Settings
from feature_repo.store import feature_store
from feature_repo.window_state import from_us
from feature_repo.windows import spec_of_view
from tests.kafka_broker import Broker
from tests.load import stream_peer
from tests.load.apart import apart
from tests.load.payments import Payments, card_id, payments
from tests.load.rig import Job, Topic, kafka, platform
from tests.load.sizes import Sizes

PROBES = 300
WARM = (0.3, 0.95)
"""The share of the events between which the rate counts as steady."""


def measure(sizes: Sizes) -> dict[str, Any]:
    """The job's rates with one process and two, and its peers'."""
    events = payments(sizes.stream_events, sizes.stream_cards)
    with platform() as current, kafka() as broker:
        if sizes.warm_events:
            _first_run(current, broker, payments(sizes.warm_events, sizes.stream_cards, name="warm"))
        topic = Topic.new(current, broker, "stream")
        topic.fill(events)
        found = {
            **_run(topic, events),
            "events": len(events),
            "cards": sizes.stream_cards,
            "state_mb": round(_memory(current) / 1e6, 1),
            "kafka": broker.described,
            "features": _features(current),
        }
        if sizes.two_processes:
            again = Topic.new(current, broker, "stream-2")
            again.fill(events)
            found["two_processes_events_per_s"] = _run(again, events, processes=2)["events_per_s"]
        return found | _peers(topic, sizes)


def _first_run(current: Settings, broker: Broker, events: Payments) -> None:
    topic = Topic.new(current, broker, "first")
    topic.fill(events)
    with Job(topic) as job:
        job.until_opened()
        job.until_done(job.online)


def _run(topic: Topic, events: Payments, processes: int = 1) -> dict[str, Any]:
    """One run of the job over the whole topic, with an empty Redis."""
    Redis.from_url(topic.settings.redis_url).flushall()
    with Job(topic, processes) as job:
        began = job.until_opened()
        seen = job.until_done(job.online)
        with_history = job.until_done(job.history)[-1][0] - began
        said = job.metrics()
    seconds = seen[-1][0] - began
    dead = sum(value for (name, _), value in said.items() if name == "fraud_dead_letters_total")
    dropped = sum(value for (name, _), value in said.items() if name == "fraud_state_events_dropped_total")
    _verify(topic.settings, events)
    return {
        "events_per_s": round(len(events) / seconds),
        "warm_events_per_s": _steady(seen),
        "seconds": round(seconds, 2),
        "with_history_seconds": round(with_history, 2),
        "dead_letters": int(dead),
        "dropped_from_states": int(dropped),
    }


def _steady(seen: Sequence[tuple[float, int]]) -> int:
    """The rate between the two shares of `WARM`."""
    total = seen[-1][1]
    inside = [(at, done) for at, done in seen if WARM[0] * total <= done <= WARM[1] * total]
    if len(inside) < 2 or inside[-1][0] <= inside[0][0]:
        return round(total / max(seen[-1][0] - seen[0][0], 1e-9))
    return round((inside[-1][1] - inside[0][1]) / (inside[-1][0] - inside[0][0]))


def _verify(current: Settings, events: Payments) -> None:
    """Raise unless the online store says of some cards what the events say: a fast wrong number is none."""
    at = int(events.ts[-1]) + 1
    cards = np.unique(events.card[-PROBES:])
    found = feature_store(current).get_online_features(
        ["card_windows:card_count_24h", "card_windows:card_sum_amount_24h"],
        [{"card_id": card_id(card), **_REQUEST, AT: at} for card in cards.tolist()],
    )
    answer = found.to_dict()
    inside = events.ts >= at - timedelta(days=1) // timedelta(microseconds=1)
    card, amount = events.card[inside], events.amount[inside]
    counts = np.bincount(card, minlength=int(events.card.max()) + 1)[cards]
    sums = np.bincount(card, amount, minlength=int(events.card.max()) + 1)[cards]
    right = np.array_equal(answer["card_count_24h"], counts) and np.allclose(answer["card_sum_amount_24h"], sums)
    if not right:
        raise AssertionError(f"As of {from_us(at)} Redis does not hold what was sent; the run measures nothing.")


_REQUEST = {"amount": 1.0, "merchant_category": None, "country": None, "channel": None}


def _memory(current: Settings) -> int:
    found: Any = Redis.from_url(current.redis_url).info("memory")
    return int(found["used_memory"])


def _features(current: Settings) -> dict[str, int]:
    """How many features each view that the stream feeds keeps."""
    views = feature_store(current).list_stream_feature_views()
    fed = [view for view in views if view.stream_source.name == "transactions_stream"]
    return {view.name: len(spec_of_view(view).features) for view in fed}


def _peers(topic: Topic, sizes: Sizes) -> dict[str, Any]:
    """Each peer in its own process: it takes what lies in front of its share as history, then is timed on the rest."""
    Redis.from_url(topic.settings.redis_url).flushall()
    where = {
        "bootstrap": topic.settings.kafka_bootstrap,
        "topic": topic.name,
        "sent": topic.sent,
        "redis_url": topic.settings.redis_url,
    }
    plan: dict[str, Any] = {
        "peer_handwritten": (stream_peer.handwritten, sizes.peer_events),
        "peer_push_batch": (stream_peer.push_batch, sizes.peer_events),
        "peer_push_row": (stream_peer.push_row, sizes.peer_row_events),
    }
    found = {}
    for name, (peer, events) in plan.items():
        found[name] = round(apart(peer, events=events, **where)["events_per_s"], 1)
    return found
