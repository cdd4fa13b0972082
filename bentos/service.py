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
from functools import partial
from typing import Any, cast

import bentoml
import orjson

from bentos.answers import Answer, BatchAnswer
from bentos.compiled import CompiledReader, NotCompilable
from bentos.cors import Cors, CrossOrigin
from bentos.decisions import Conflicts, DecisionLog, RedisDecisionLog
from bentos.docs_page import DocsPage
from bentos.explaining import Explainers
from bentos.express import Counter, Express
from bentos.express import install as install_express
from bentos.features import UnknownFeatureService
from bentos.feedback_desk import FeedbackDesk
from bentos.gate import Gate
from bentos.intake import Limits
from bentos.journal import Journal
from bentos.journaled import JournaledLog
from bentos.judging import Judge
from bentos.key_file import Insecure
from bentos.key_watch import check_exposure, listening_host, open_access
from bentos.lane import App, Charge, Headers, Lane
from bentos.metrics_page import MetricsPage
from bentos.metrics_page import begin as begin_metrics
from bentos.model import InvalidModel
from bentos.online import OnlineFeatures
from bentos.openapi import amended
from bentos.payments import asked
from bentos.records import Records
from bentos.registry import NoModel
from bentos.rollout import Models
from feature_repo.contract import ContractMismatch
from feature_repo.schema import Transaction
from feature_repo.settings import Settings, settings
from feature_repo.vector import FALLBACK_SERVICE
from monitoring.control_group import ControlGroup, InvalidControlGroup
from monitoring.privacy import keep_logs_private
from monitoring.tracing import HEADER, traces

logger = logging.getLogger("bentoml.service.tollgate")

TIMEOUT_SECONDS = 5
"""BentoML's own limit for a request, well above what the parts behind it may take. Its timers are never cancelled."""

REFUSALS = (
    ContractMismatch,
    Insecure,
    InvalidControlGroup,
    InvalidModel,
    NoModel,
    NotCompilable,
    UnknownFeatureService,
)
"""Why a service is not started, each saying what to do; any other error is a fault, with its traceback."""

COLLECT = (50_000, 20, 100)
"""Allocations before the garbage collector looks, and how many looks before it looks further: hardly anything that a
payment makes is part of a cycle."""

DESCRIPTION = "Card payments in, decisions on record out."


class StartRefused(RuntimeError):
    """There is nothing this code could serve."""


@bentoml.service(
    name="tollgate",
    workers=settings().workers,
    traffic={"timeout": TIMEOUT_SECONDS},
    tracing={"excluded_urls": ".*"},
    metrics={"enabled": False},  # see `bentos.metrics_page`
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
        keep_logs_private()
        check_exposure(current, listening_host(current))
        self.cors = Cors(current.cors_origins)
        self.access, self.keys = open_access(current, current.workers)
        reader, alone = CompiledReader(current), CompiledReader(current, FALLBACK_SERVICE)
        self.reasons = Explainers(current.reasons)
        self.models = Models(current, reader.columns, alone.columns, prepare=self.reasons.prepare)
        self.models.open()
        self.online = OnlineFeatures(reader, current)
        log: DecisionLog = RedisDecisionLog(current)
        if current.decision_log == "kafka":
            log = _kafka_log(current)
        self.log = JournaledLog(log, Journal(current.home / "journal.db"), Conflicts(current))
        control = ControlGroup.of(current)
        judge = Judge(alone, self.models.guard, self.reasons, current.degraded_review_from, control)
        self.gate = Gate(
            judge,
            lambda: self.models.lineup,
            self.models.card,
            self.online,
            self.log,
            Limits.of(current),
            _utc_now,
            self.models.shadow,
            traces(current, "service"),
        )
        columns = {reader.feature_service: reader.columns, alone.feature_service: alone.columns}
        self.desk = FeedbackDesk(current, self.log, self.gate.limits, _utc_now)
        self.records = Records(self.log, columns, current)

    @bentoml.on_startup
    async def begin(self) -> None:
        """Connect, and compute once: no payment should wait for what the first one does."""
        if not await self.online.open():
            logger.warning("Redis does not answer. Payments are decided on what they say themselves until it does.")
        await self.log.start()
        begin_metrics()
        self.gate.warm_up()
        gc.collect()
        gc.freeze()  # what start-up left is never garbage: later collections need not walk it
        gc.set_threshold(*COLLECT)
        _without_access_log()
        _running[:] = [self]
        if self.cors.closed:  # who answers browsers marks every answer
            Express.counter = Counter(_gate, _door, _parent if settings().traces_endpoint is not None else None)

    @bentoml.api
    async def predict(self, transaction: Transaction, /) -> Answer:
        """Decide one card payment. Unknown cards and merchants are decided too, on what the payment itself says."""
        return Answer.model_validate_json(await self.gate.predict(asked(transaction), time.perf_counter()))

    @bentoml.api
    async def predict_batch(self, transactions: list[Transaction]) -> BatchAnswer:
        """Decide up to 1,000 payments (FRAUD_MAX_BATCH), in the order sent: an answer or an error for each."""
        payments = [asked(transaction) for transaction in transactions]
        return BatchAnswer.model_validate_json(await self.gate.predict_batch(payments, time.perf_counter()))

    @bentoml.on_shutdown
    async def close(self) -> None:
        """Finish the decisions under way."""
        await self.gate.close()
        self.desk.close()
        self.models.close()
        if self.keys is not None:
            self.keys.close()

    async def __is_ready__(self) -> bool:
        """A model is loaded, or there would be no instance; what is left is where decisions and features lie."""
        return await self.gate.ready()


_exposed = cast(Any, TollgateService)
"""The decorator has made a BentoML `Service` of the class, which only the types don't show."""


def _kafka_log(current: Settings) -> DecisionLog:
    from bentos.kafka_log import KafkaDecisionLog  # its client is no part of an image whose log is Redis

    return KafkaDecisionLog(current)


def _utc_now() -> datetime:
    return datetime.now(UTC)


_running: list[Any] = []
"""The instance of this process. BentoML's own word for it goes through a lookup that costs a payment 5 µs."""


def _gate() -> Gate:
    gate: Gate = _running[0].gate
    return gate


async def _card(_: str) -> bytes:
    return _gate().card().model_dump_json().encode()


async def _document(_: str) -> bytes:
    return orjson.dumps(amended(_exposed.openapi_spec.asdict(), DESCRIPTION))


async def _decision(rest: str) -> bytes:
    return await _running[0].records.get(rest)


async def _feedback(body: bytes) -> bytes:
    return await _running[0].desk.take(body)


def _door(path: str, headers: Headers) -> Charge | None:
    access = _running[0].access
    caller = access.admit(path, headers)
    return None if caller is None else partial(access.charge, caller)


def _parent(headers: Headers) -> bytes:
    """The trace that a request belongs to, as its sender says."""
    return next((value for name, value in headers if name == HEADER), b"")


def _cors() -> Cors:
    return _running[0].cors


def _without_access_log() -> None:
    """uvicorn words a line for each request as long as its logger has anybody to give it to."""
    access = logging.getLogger("uvicorn.access")
    access.handlers, access.propagate = [], False


def _stop_supervisor() -> None:
    """End `bentoml serve` with its worker, which it would start again and again while clients wait on its socket."""
    if bentoml.server_context.worker_index is not None:
        os.kill(os.getppid(), signal.SIGTERM)


class _Fronted(type(_exposed)):  # type: ignore[misc]
    """BentoML's service with the lane in front of all of it.

    `add_asgi_middleware` would put the lane behind BentoML's own metrics, tracing and time-out, which cost a payment as
    much as its features do and know less of it than the lane.
    """

    __slots__ = ()

    def to_asgi(self, is_main: bool = True) -> App:
        install_express()
        behind: App = DocsPage(super().to_asgi(is_main=is_main))
        if settings().metrics:
            behind = MetricsPage(behind)
        resources = {"/model": _card, "/docs.json": _document, "/decisions/": _decision}
        parent = _parent if settings().traces_endpoint is not None else None
        actions = {"/feedback": _feedback}
        lane = Lane(behind, decider=_gate, resources=resources, door=_door, actions=actions, parent=parent)
        return CrossOrigin(lane, _cors) if settings().cors_origins else lane


_exposed.__class__ = _Fronted
