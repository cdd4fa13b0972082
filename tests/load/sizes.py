"""How large each measurement is: as reported, smaller to see that all of it works, and with what takes long."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Sizes:
    """Events, rows, cards and seconds of each part."""

    stream_events: int = 500_000
    stream_cards: int = 50_000
    warm_events: int = 20_000
    peer_events: int = 50_000
    peer_row_events: int = 2_000
    two_processes: bool = True

    rate: int = 2_000
    freshness_seconds: float = 30.0
    freshness_warm_seconds: float = 5.0

    backfill_events: tuple[int, ...] = (100_000, 1_000_000)
    backfill_skewed: tuple[int, ...] = (1_000_000,)
    dataset: str | None = None
    dataset_events: int = 1_300_000

    rows: int = 1_000_000
    stock_rows: tuple[int, ...] = (100_000, 300_000)
    limited_history: int = 3_000_000
    limited_rows: int = 20_000

    state_cards: int = 1_000_000
    state_chunk: int = 20_000


REPORTED = Sizes()
FULL = replace(REPORTED, backfill_events=(100_000, 1_000_000, 10_000_000), stock_rows=(100_000, 300_000, 500_000))
QUICK = Sizes(
    stream_events=20_000,
    stream_cards=2_000,
    warm_events=2_000,
    peer_events=2_000,
    peer_row_events=20,
    two_processes=False,
    freshness_seconds=3.0,
    freshness_warm_seconds=1.0,
    backfill_events=(5_000, 10_000),
    backfill_skewed=(10_000,),
    dataset="synthetic",
    dataset_events=10_000,
    rows=10_000,
    stock_rows=(5_000,),
    limited_history=50_000,
    limited_rows=2_000,
    state_cards=2_000,
    state_chunk=1_000,
)
