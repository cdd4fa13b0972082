"""How large the serving benchmark is: as reported, shorter to work on it, and tiny to see that all of it runs."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from tests.load.serving_population import BUSY, Population


@dataclass(frozen=True)
class ServingSizes:
    """Seconds of each phase, and who pays.

    `shares` of the maximum are tried until one is held; `curve` are shares of the rate that is.
    """

    population: Population = field(default_factory=Population)
    busy: Population = BUSY
    trained_on: int = 4_000
    warm_seconds: float = 5.0
    maximum_seconds: float = 10.0
    shares: tuple[float, ...] = (0.9, 0.87, 0.84, 0.8, 0.75, 0.7, 0.6, 0.5)
    probe_seconds: float = 10.0
    single_seconds: float = 60.0
    half_seconds: float = 30.0
    batch_seconds: float = 10.0
    peer_seconds: float = 10.0
    extras_seconds: float = 10.0
    extras_rounds: int = 2
    curve_seconds: float = 5.0
    curve: tuple[float, ...] = (0.1, 0.25, 0.75, 0.9, 1.05)
    scenario_seconds: float = 60.0
    connections: int = 256
    peers: tuple[str, ...] = ("stock", "seed", "feast", "bare")


REPORTED = ServingSizes()
FULL = replace(REPORTED, half_seconds=120.0, single_seconds=300.0, curve_seconds=30.0, scenario_seconds=600.0)
QUICK = ServingSizes(
    population=Population(cards=5_000, merchants=10_000),
    warm_seconds=3.0,
    maximum_seconds=10.0,
    probe_seconds=5.0,
    single_seconds=10.0,
    half_seconds=10.0,
    batch_seconds=10.0,
    peer_seconds=10.0,
    extras_seconds=10.0,
    extras_rounds=1,
    curve_seconds=5.0,
    scenario_seconds=15.0,
)
TINY = ServingSizes(
    population=Population(cards=50, merchants=5, per_card=10),
    busy=Population(cards=50, merchants=5, per_card=10),
    trained_on=400,
    warm_seconds=0.3,
    maximum_seconds=0.5,
    probe_seconds=0.5,
    single_seconds=0.5,
    half_seconds=0.5,
    batch_seconds=0.5,
    peer_seconds=0.5,
    extras_seconds=0.5,
    extras_rounds=1,
    curve_seconds=0.5,
    shares=(0.5,),
    curve=(0.5,),
    scenario_seconds=1.0,
    connections=8,
    peers=("bare",),
)
