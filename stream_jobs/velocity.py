"""The job that keeps windowed features fresh: `python -m bytewax.run stream_jobs.velocity`.

A record is acknowledged only when every view's state that counts it is readable in the online store, or when it lies
among the dead letters. Importing this module connects to nothing.

One job runs for a consumer group, with as many workers as it likes: a second one would keep states of its own, and of
two writers each would overwrite what the other has counted.
"""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from itertools import chain
from typing import Any

import bytewax.operators as op
import numpy as np
from bytewax.dataflow import Dataflow
from bytewax.inputs import FixedPartitionedSource, StatefulSourcePartition
from bytewax.operators import KeyedStream, StatefulBatchLogic
from bytewax.outputs import DynamicSink, StatelessSinkPartition

from feature_repo.settings import Settings, settings
from feature_repo.store import feature_store
from monitoring.catalogue_stream import StreamMetrics
from monitoring.declaration import begin, observe_many
from monitoring.exposition import serve
from monitoring.metrics import metrics
from stream_jobs.blocks import Part, columns, fan_out
from stream_jobs.engine import Plan, ShardLogic, Written
from stream_jobs.history import write_history
from stream_jobs.lag import tell_lag
from stream_jobs.payments import Payments, by_partition, read
from stream_jobs.progress import Progress
from stream_jobs.transports.base import Acknowledger, Record, Transport
from stream_jobs.transports.configured import transport as configured
from stream_jobs.updates import FeatureUpdates

STREAM_SOURCE = "transactions_stream"


@dataclass(frozen=True)
class Receipt:
    """Word about a block: the `parts` it has come apart into with the ids of its records, or that one is written."""

    block: str
    parts: int = 0
    ids: tuple[str, ...] = ()


class _CountDown(StatefulBatchLogic[Receipt, list[str], None]):
    """Which blocks of a partition are written in all their parts; their records are done."""

    def __init__(self) -> None:
        self._announced: dict[str, Receipt] = {}
        self._written: defaultdict[str, int] = defaultdict(int)

    def on_batch(self, batch: list[Receipt]) -> tuple[Iterable[list[str]], bool]:
        touched: dict[str, None] = {}
        for receipt in batch:
            touched[receipt.block] = None
            if receipt.ids:
                self._announced[receipt.block] = receipt
            else:
                self._written[receipt.block] += 1
        done: list[str] = []
        for block in touched:
            whole = self._announced.get(block)
            if whole is not None and self._written[block] == whole.parts:
                done += whole.ids
                del self._announced[block], self._written[block]
        return ([done] if done else []), self.RETAIN

    def snapshot(self) -> None:
        """Nothing: what was open at a crash is delivered again."""
        return


class _Watched(StatefulSourcePartition[Record, Any]):
    """A partition that says so when everything in its log has been given, for those who judge how old features are."""

    def __init__(self, name: str, partition: StatefulSourcePartition[Record, Any], steps: _Steps) -> None:
        self._name, self._partition, self._steps = name, partition, steps

    def next_batch(self) -> Iterable[Record]:
        records = self._partition.next_batch()
        if getattr(self._partition, "caught_up", False):  # files end: they have no such state
            self._steps.up_to(self._name, time.time())
        return records

    def next_awake(self) -> datetime | None:
        return self._partition.next_awake()

    def snapshot(self) -> Any:
        return self._partition.snapshot()

    def close(self) -> None:
        self._partition.close()


@dataclass
class _Steps:
    """The steps that touch the outside, connected when they first run."""

    plan: Plan
    transport: Transport
    current: Settings
    _starting: Any = field(default_factory=threading.Lock)
    _started: bool = False
    _newest: float = 0.0

    def start(self) -> None:
        """Before the first record: refuse what cannot be executed, load the kernels, and serve this process's metrics
        to the machine. What has been done once is not done again."""
        with self._starting:
            if self._started:
                return
            self.plan.warm_up()
            begin(metrics, StreamMetrics)
            for view in self.plan.specs:
                metrics.state_overflow.labels(view=view)
                metrics.state_sealed.labels(view=view)
                metrics.state_cache_misses.labels(view=view)
                metrics.state_cache_hits.labels(view=view)
            if self.current.metrics and self.current.stream_metrics_port is not None:
                serve(self.current, self.current.stream_metrics_port)
                tell_lag(self.transport)
            self._progress.begin()
            self._started = True

    @cached_property
    def _acknowledger(self) -> Acknowledger:
        return self.transport.acknowledger()

    @cached_property
    def _updates(self) -> FeatureUpdates | None:
        return FeatureUpdates(self.current) if self.current.feature_updates else None

    @cached_property
    def _progress(self) -> Progress:
        return Progress(self.current)

    def up_to(self, partition: str, at: float) -> None:
        """What a partition's log held until `at` (seconds since 1970) is in the features."""
        self._progress.up_to(partition, at)

    def _tell_newest(self, at: float) -> None:
        if at > self._newest:
            self._newest = at
            metrics.stream_last_event.set(at)

    @cached_property
    def _columns(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(name for spec in self.plan.specs.values() for name in columns(spec)))

    def read(self, records: list[Record]) -> Iterable[tuple[str, Part | Receipt]]:
        """The parts of the records' blocks, each to its shard, and before them what each partition's block holds.

        A record that is no valid payment is buried here, before its block can be done.
        """
        for partition, of_one in by_partition(records):
            found = read(of_one, self.current.allowed_lateness, self.current.max_future)
            self._bury(found)
            block = found.block(partition, self._columns)
            parts = list(fan_out(self.plan.specs, block)) if found.payments else []
            yield partition, Receipt(block.name, len(parts), tuple(record.id for record in of_one))
            yield from parts

    def _bury(self, found: Payments) -> None:
        if found.dead:
            self._acknowledger.bury(found.dead)
        for _, reason in found.dead:
            metrics.dead_letters.labels(reason=reason.split(":", 1)[0]).inc()
            metrics.stream_events.labels(outcome="dead").inc()

    def write(self, batch: list[tuple[str, Written]]) -> Iterable[tuple[str, Receipt]]:
        """Put the states of a batch online; a receipt for each part that is in them."""
        for view in dict.fromkeys(written.view for _, written in batch):
            # An entity that is in two of them is written twice, in their order: the later state stands.
            several = [written for _, written in batch if written.view == view]
            entities = list(chain.from_iterable(written.entities for written in several))
            states = list(chain.from_iterable(written.states for written in several))
            self.plan.write(view, entities, states, list(chain.from_iterable(one.stamps for one in several)))
            if self._updates is not None:
                self._updates.publish(view, self.plan.specs[view], entities, states)
        now = time.time()
        first = next(iter(self.plan.specs))
        for _, written in batch:
            metrics.state_overflow.labels(view=written.view).inc(written.overflowed)
            metrics.state_sealed.labels(view=written.view).inc(written.sealed)
            metrics.state_cache_misses.labels(view=written.view).inc(written.loaded)
            metrics.state_cache_hits.labels(view=written.view).inc(len(written.entities) - written.loaded)
            events = sum(len(part.appended_at) for part in written.parts)
            if written.view == first:
                metrics.stream_events.labels(outcome="applied").inc(written.added)
                metrics.stream_events.labels(outcome="duplicate").inc(events - written.added)
            for part in written.parts:
                newest = float(part.appended_at.max()) / 1e6
                self.up_to(part.partition, newest)
                self._tell_newest(newest)
                observe_many(metrics.feature_freshness, np.maximum(now - part.appended_at / 1e6, 0.0))
                yield part.partition, Receipt(part.block)


@dataclass(frozen=True)
class _Started(FixedPartitionedSource[Record, Any]):
    """A transport's source that opens nothing before the job can do its work."""

    source: FixedPartitionedSource[Record, Any]
    steps: _Steps

    def list_parts(self) -> list[str]:
        return self.source.list_parts()

    def build_part(self, step_id: str, for_part: str, resume_state: Any) -> StatefulSourcePartition[Record, Any]:
        self.steps.start()
        return _Watched(for_part, self.source.build_part(step_id, for_part, resume_state), self.steps)


class _AckSink(DynamicSink[tuple[str, list[str]]]):
    def __init__(self, steps: _Steps) -> None:
        self._steps = steps

    def build(self, step_id: str, worker_index: int, worker_count: int) -> StatelessSinkPartition[Any]:
        self._steps.start()
        return _AckPartition(self._steps.transport.acknowledger())


class _AckPartition(StatelessSinkPartition[tuple[str, list[str]]]):
    def __init__(self, acknowledger: Acknowledger) -> None:
        self._acknowledger = acknowledger

    def write_batch(self, items: list[tuple[str, list[str]]]) -> None:
        for partition, ids in items:
            self._acknowledger.acknowledge(partition, ids)

    def close(self) -> None:
        self._acknowledger.close()


def build_flow(transport: Transport, current: Settings, plan: Plan | None = None) -> Dataflow:
    """The dataflow from a transport's records to fresh features in the online store."""
    plan = plan or Plan(lambda: feature_store(current), STREAM_SOURCE)
    steps = _Steps(plan, transport, current)
    flow = Dataflow("velocity")
    records = op.input("records", flow, _Started(transport.source(), steps))
    # Record
    read = op.flat_map_batch("read", records, steps.read)
    # (shard, Part) | (partition, Receipt)
    ways = op.branch("parts", read, lambda item: isinstance(item[1], Part))
    merged = op.stateful_batch("merge", ways.trues, lambda _: ShardLogic(plan))
    # (shard, Written)
    written = op.flat_map_batch("write online", merged, steps.write)
    # (partition, Receipt)
    accounted: KeyedStream[Receipt] = op.merge("accounted", ways.falses, written)
    done = op.stateful_batch("count down", accounted, lambda _: _CountDown())
    # (partition, [record id])
    op.output("acknowledge", done, _AckSink(steps))
    return flow


flow = build_flow(configured(settings(), settings().consumer_group), settings())
if not settings().history_apart:
    write_history(flow, configured(settings(), settings().history_group), settings())
