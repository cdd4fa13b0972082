"""`POST /feedback`: what became known of a payment is on record before it is acknowledged.

`stream_jobs.feedback` carries it on.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from redis.exceptions import RedisError

from bentos.decisions import DecisionLog
from bentos.errors import Refused, Unavailable
from bentos.feedback import feedback_answer, feedback_command, matched, read_feedback
from bentos.intake import Limits
from bentos.wire import Wire
from feature_repo.settings import Settings


class FeedbackDesk:
    """Takes statements; for one event loop."""

    def __init__(self, settings: Settings, log: DecisionLog, limits: Limits, now: Callable[[], datetime]) -> None:
        self._stream, self._timeout = settings.feedback_stream, settings.log_timeout
        self._log, self._limits, self._now = log, limits, now
        self._wire = Wire(settings.redis_url, settings.log_timeout)

    async def take(self, body: bytes) -> bytes:
        """The JSON of a `FeedbackAnswer`.

        Raises `Refused`: 400 and 422 as `read_feedback`, 404 for a payment that was not decided here, 422 for one that
        another card made. Raises `Unavailable` where the statement is not on record.
        """
        now = self._now()
        feedback = read_feedback(body, now, self._limits.max_future)
        decided = await self._log.find(feedback.transaction_id)
        if decided is not None and feedback.card_id not in (None, decided.transaction.card_id):
            problem = {"field": "card_id", "value": feedback.card_id, "rule": "must be the card that paid"}
            raise Refused(422, "invalid_feedback", "The feedback names another card than the payment's.", [problem])
        known = matched(feedback, decided is not None, now, self._limits.max_age)
        try:
            reply = await self._wire.ask(*feedback_command(feedback, self._stream), timeout=self._timeout)
        except RedisError as error:
            raise Unavailable("feedback_log", error) from error
        return feedback_answer(feedback, reply, known).model_dump_json().encode()

    def close(self) -> None:
        """Give the connection back."""
        self._wire.close()
