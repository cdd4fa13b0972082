"""The peers of the stream benchmark as consumers of the same topic.

Each first takes the older part of the topic into its lists, without writing, so that its state is as large as the
job's; then some events to warm up; then it is timed on the rest.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path

from confluent_kafka import Consumer, TopicPartition

from tests.load.peers import HandWritten, feast_repo, hset_per_event, push

BATCH = 1_000
WARM_SHARE = 10
"""One event in so many of a peer's share warms it up."""


def handwritten(bootstrap: str, topic: str, sent: list[int], redis_url: str, events: int) -> dict[str, float]:
    """Per-card lists and one HSET per event."""
    windows = HandWritten()
    return _timed(bootstrap, topic, sent, events, windows, lambda bodies: hset_per_event(bodies, redis_url, windows))


def push_batch(bootstrap: str, topic: str, sent: list[int], redis_url: str, events: int) -> dict[str, float]:
    """`store.push` of 1,000 events at a time."""
    return _pushing(bootstrap, topic, sent, redis_url, events, BATCH)


def push_row(bootstrap: str, topic: str, sent: list[int], redis_url: str, events: int) -> dict[str, float]:
    """`store.push` of each event."""
    return _pushing(bootstrap, topic, sent, redis_url, events, 1)


def _pushing(bootstrap: str, topic: str, sent: list[int], redis_url: str, events: int, rows: int) -> dict[str, float]:
    windows = HandWritten()
    with tempfile.TemporaryDirectory(prefix="tollgate-peer-") as folder:
        store = feast_repo(Path(folder), redis_url)
        return _timed(bootstrap, topic, sent, events, windows, lambda bodies: push(bodies, store, rows, windows))


def _timed(
    bootstrap: str,
    topic: str,
    sent: Sequence[int],
    events: int,
    windows: HandWritten,
    run: Callable[[Iterable[bytes]], int],
) -> dict[str, float]:
    share = [events * each // sum(sent) for each in sent]
    cuts = [each - own for each, own in zip(sent, share, strict=True)]
    for body in _read(bootstrap, topic, [0] * len(sent), cuts):
        windows.remember(json.loads(body))
    rest = _read(bootstrap, topic, cuts, sent)
    run(islice(rest, sum(share) // WARM_SHARE))
    began = time.perf_counter()
    done = run(rest)
    return {"events_per_s": done / (time.perf_counter() - began), "events": done}


def _read(bootstrap: str, topic: str, begins: Sequence[int], ends: Sequence[int]) -> Iterator[bytes]:
    """The messages [begin, end) of each partition, in order for each."""
    client = Consumer({"bootstrap.servers": bootstrap, "group.id": "peer", "enable.auto.commit": False})
    spans = enumerate(zip(begins, ends, strict=True))
    wanted = [(number, begin, end) for number, (begin, end) in spans if begin < end]
    client.assign([TopicPartition(topic, number, begin) for number, begin, _ in wanted])
    left = sum(end - begin for _, begin, end in wanted)
    while left:
        # It waits for as many as it is asked for: not for more than there are.
        for message in client.consume(min(BATCH, left), timeout=1):
            partition, offset, body = message.partition(), message.offset(), message.value()
            if partition is not None and offset is not None and body is not None and offset < ends[partition]:
                left -= 1
                yield body
    client.close()
