"""The BentoML service: what starts, what is exposed, and how it ends. HTTP only; the gate decides.

Importing it connects nothing. A worker that has no fitting model ends its whole service instead of serving.
"""

from __future__ import annotations

import gc
import logging
import os
import signal
import time
from datetime import UTC, datetime
from typing import Any, cast

import bentoml
import orjson

from bentos.answers import Answer, BatchAnswer
from bentos.compiled import CompiledReader, NotCompilable
from bentos.decisions import RedisDecisionLog
from bentos.errors import Unavailable
from bentos.features import FeatureReader, UnknownFeatureService
from bentos.gate import Gate
from bentos.intake import Limits
from bentos.lane import Lane
from bentos.model import InvalidModel
from bentos.openapi import amended
from bentos.registry import NoModel, champion
from feature_repo.contract import ContractMismatch
from feature_repo.schema import Transaction
from feature_repo.settings import Settings, settings

logger = logging.getLogger("bentoml.service.tollgate")

TIMEOUT_SECONDS = 5
"""BentoML's own limit for a request, well above what the parts behind it may take. Its timers are never cancelled."""

REFUSALS = (ContractMismatch, InvalidModel, NoModel, NotCompilable, UnknownFeatureService)
"""Why a service is not started, each saying what to do; any other error is a fault, with its traceback."""

DESCRIPTION = "Card payments in, decisions on record out."


class StartRefused(RuntimeError):
    """There is nothing this code could serve."""


@bentoml.service(
    name="tollgate",
    traffic={"timeout": TIMEOUT_SECONDS},
    tracing={"excluded_urls": ".*"},
    logging={"access": {"enabled": False}},
    envs=[{"name": "BENTOML_DO_NOT_TRACK", "value": "True"}],
)
class TollgateService:
    """The service's interface; `gate` does the work."""

    def __init__(self) -> None:
        try:
            self._open(settings())
        except REFUSALS as error:
            _stop_supervisor()
            raise StartRefused(f"The service does not start. {error}") from None
        except Exception:
            _stop_supervisor()
            raise

    def _open(self, current: Settings) -> None:
        reader = CompiledReader(current)
        model = champion(current, reader.feature_service, reader.columns)
        self.log = RedisDecisionLog(current)
        self.gate = Gate(model, reader, self.log, Limits.of(current), _utc_now)
        _warm_up(reader)
        gc.collect()
        gc.freeze()  # what start-up left is never garbage: later collections need not walk it
        logger.info("Serving %s version %s from the %s.", model.name, model.version, model.source)

    @bentoml.api
    async def predict(self, transaction: Transaction, /) -> Answer:
        """Decide one card payment. Unknown cards and merchants are decided too, on what the payment itself says."""
        return await self.gate.predict(transaction, time.perf_counter())

    @bentoml.api
    async def predict_batch(self, transactions: list[Transaction]) -> BatchAnswer:
        """Decide up to 1,000 payments (FRAUD_MAX_BATCH), in the order sent: an answer or an error for each."""
        return await self.gate.predict_batch(transactions, time.perf_counter())

    @bentoml.on_shutdown
    def close(self) -> None:
        """Finish the decisions under way."""
        self.gate.close()
        self.log.close()

    def __is_ready__(self) -> bool:
        """A model is loaded, or there would be no instance; what is left is Redis."""
        return self.gate.ready()


_exposed = cast(Any, TollgateService)
"""The decorator has made a BentoML `Service` of the class, which only the types don't show."""


def _utc_now() -> datetime:
    return datetime.now(UTC)


def _gate() -> Gate:
    gate: Gate = bentoml.get_current_service().gate
    return gate


def _card() -> bytes:
    return _gate().card().model_dump_json().encode()


def _document() -> bytes:
    return orjson.dumps(amended(_exposed.openapi_spec.asdict(), DESCRIPTION))


def _warm_up(reader: FeatureReader) -> None:
    """Read once: the first read plans the query and compiles the window maths, which no payment should wait for."""
    nobody = Transaction(transaction_id="-", timestamp=_utc_now(), card_id="-", merchant_id="-", amount=1.0)
    try:
        reader.read([nobody])
    except Unavailable as error:
        logger.warning("%s Not ready until it does.", error)


def _stop_supervisor() -> None:
    """End `bentoml serve` with its worker, which it would start again and again while clients wait on its socket."""
    if bentoml.server_context.worker_index is not None:
        os.kill(os.getppid(), signal.SIGTERM)


_exposed.add_asgi_middleware(Lane, decider=_gate, resources={"/model": _card, "/docs.json": _document})
