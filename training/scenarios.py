"""The five frauds of the generated history, and the table of what each is made of.

A fraudster has the card's number and pays, for a while, at merchants where that goes well; honest customers pay there
too. `training.attacks` carries the table out.
"""

from __future__ import annotations

from dataclasses import dataclass

from training.population import MINUTE

NIGHT_HOURS = 6
"""The night is 00:00 to 05:59 UTC."""


@dataclass(frozen=True)
class CardTesting:
    """A few small payments online show that the card works, then large ones follow."""

    share: float = 0.22
    tests: tuple[int, int] = (3, 5)
    test_amount: tuple[float, float] = (0.5, 5.0)
    test_gap: float = 3 * MINUTE
    large: tuple[int, int] = (2, 4)
    large_factor: float = 5.0
    large_gap: float = 20 * MINUTE


@dataclass(frozen=True)
class OffHours:
    """A few payments while the holder sleeps."""

    share: float = 0.16
    size: tuple[int, int] = (4, 6)
    night_share: float = 0.70
    amount_factor: float = 3.0
    gap: float = 15 * MINUTE


@dataclass(frozen=True)
class Foreign:
    """The number is used by a ring whose members sit in several countries."""

    share: float = 0.20
    size: tuple[int, int] = (5, 8)
    abroad_share: float = 0.60
    amount_factor: float = 4.0
    gap: float = 20 * MINUTE
    favoured_merchants: float = 0.004
    categories: tuple[str, ...] = ("electronics", "jewelry", "travel", "cash", "shopping")


@dataclass(frozen=True)
class VelocityBurst:
    """Many payments of ordinary size before the card is blocked: ten days' worth in one."""

    share: float = 0.24
    rate_factor: float = 10.0
    least: int = 12
    amount_factor: float = 1.2
    gap: float = 8 * MINUTE


@dataclass(frozen=True)
class CompromisedMerchant:
    """A till in crooked hands charges the cards that ever paid there, for weeks, once here and once there."""

    share: float = 0.18
    rows: int = 36
    days: tuple[float, float] = (40.0, 60.0)
    amount_factor: float = 2.0


@dataclass(frozen=True)
class Scenarios:
    """The table. Shares are of the fraudulent rows, factors of the card's mean honest amount or rate, gaps mean
    microseconds between payments; `favoured_*` tells where fraudsters pay online and for how long they stay there;
    these places are given up in `turnover` parts, one after the other."""

    card_testing: CardTesting = CardTesting()
    off_hours: OffHours = OffHours()
    foreign: Foreign = Foreign()
    velocity_burst: VelocityBurst = VelocityBurst()
    compromised_merchant: CompromisedMerchant = CompromisedMerchant()
    favoured_days: float = 400.0
    turnover: int = 10
    favoured_merchants: float = 0.009
    favoured_share: float = 0.97


SCENARIOS = Scenarios()
