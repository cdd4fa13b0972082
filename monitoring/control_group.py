"""The control group: would-be declines that are let pass at random, so that the model's own declines don't blind it.

Invariant: who is let pass depends on the payment's identifier, its amount and the settings alone, so that it is the
same in every process, for a repeated request and in a replay; and nobody without the key can tell beforehand.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b

from feature_repo.settings import Settings

SPAN = 2**64


class InvalidControlGroup(ValueError):
    """Settings under which nobody should be let pass."""


@dataclass(frozen=True, slots=True)
class ControlGroup:
    """`share` of the would-be declines up to `max_amount` (the payment's currency), chosen by a hash under `key`."""

    share: float
    max_amount: float
    key: bytes

    @classmethod
    def of(cls, current: Settings) -> ControlGroup | None:
        """The group of the settings, None where it is off; raises `InvalidControlGroup` for a share without a key."""
        if not current.control_share:
            return None
        if current.control_key is None:
            raise InvalidControlGroup(
                f"FRAUD_CONTROL_SHARE is {current.control_share:g} and there is no FRAUD_CONTROL_KEY; must be a secret "
                "of at least 16 characters, the same for every worker, or who pays could tell what is let pass."
            )
        key = blake2b(current.control_key.encode(), digest_size=32).digest()
        return cls(current.control_share, current.control_max_amount, key)

    def lets_pass(self, transaction_id: str, amount: float) -> bool:
        """Whether a payment that the model would decline is approved all the same."""
        if amount > self.max_amount:
            return False
        place = int.from_bytes(blake2b(transaction_id.encode(), digest_size=8, key=self.key).digest())
        return place < self.share * SPAN
