"""Every setting of the platform, read from `FRAUD_*` environment variables, and secrets from files too.

FRAUD_SECRETS names a folder in which a file `fraud_redis_url` stands for FRAUD_REDIS_URL, and so on: what a cluster
mounts is then in no environment. A variable wins over a file.

What differs between a laptop and a cluster is here; what changes the model's meaning is code
(`feature_repo.definitions`, `feature_repo.schema`).
"""

from __future__ import annotations

from datetime import timedelta
from functools import lru_cache
from os import environ
from pathlib import Path
from typing import Literal

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

REPO = Path(__file__).resolve().parent
ROOT = REPO.parent


class Settings(BaseSettings):
    """The settings object; construct it with keyword arguments in tests, or call `settings()` for the process's own."""

    model_config = SettingsConfigDict(env_prefix="FRAUD_", env_parse_none_str="null", extra="ignore", frozen=True)

    profile: Literal["embedded", "full"] = Field(
        default="embedded", description="`embedded`: files on this machine; `full`: history and registry in Postgres"
    )
    home: Path = Field(default=ROOT / ".tollgate", description="Where the embedded profile keeps its state")
    data: Path = Field(default=ROOT / "data", description="Folder of third-party data sets")

    redis_url: str = Field(
        default="redis://127.0.0.1:6379/0", description="The online store; unless told otherwise the streams too"
    )
    postgres_url: str = Field(
        default="postgresql://tollgate@127.0.0.1:5432/tollgate",
        description="Decision table; history and registry of the full profile",
    )
    registry_url: str | None = Field(default=None, description="Feast registry; default: SQLite below `home`")
    offline_memory: int | None = Field(default=None, description="Bytes for one retrieval's events; null: RAM / 4")
    mlflow_url: str = Field(default="http://127.0.0.1:5000", description="The model registry")
    model_name: str = Field(default="tollgate-fraud", description="The registered model that serves")
    request_model_name: str | None = Field(default=None, description="The fallback's; null: model_name with -request")
    registry_poll: timedelta = Field(default=timedelta(seconds=5), description="Time from one look at it to the next")
    challenger_weight: float = Field(default=0.0, ge=0, le=1, description="Share of payments the challenger answers")
    shadow: bool = Field(default=True, description="The challenger scores what the champion answers, unseen")
    shadow_stream: str = Field(default="shadow", description="The Redis stream of the scores in shadow")
    shadow_kept: int = Field(default=5_000, ge=1, description="Batches of shadow scores kept, of up to 1,000 payments")
    shadow_waiting: int = Field(default=20_000, ge=1, description="Payments that may wait for it; more are dropped")
    challenger_window: timedelta = Field(default=timedelta(minutes=1), description="What the guard judges it by")
    challenger_max_failures: int = Field(default=5, ge=0, description="Failed runs in the window that are forgiven")
    challenger_max_failure_share: float = Field(default=0.01, ge=0, le=1, description="Share of runs, likewise")
    challenger_slow_factor: float = Field(default=3.0, ge=1, description="Times the champion's time it may take")
    challenger_slow_from: float = Field(default=0.001, ge=0, description="Seconds; a run below that is never slow")

    host: str = Field(default="127.0.0.1", description="The address that the service listens on")
    port: int = Field(default=3000, description="The service's port")
    max_body_bytes: int = Field(default=1_048_576, description="Largest body of a request")
    max_batch: int = Field(default=1_000, description="Most payments in a batch")
    max_future: timedelta = Field(default=timedelta(minutes=5), description="Clock skew a payment may have")
    max_age: timedelta | None = Field(default=timedelta(days=7), description="Oldest payment scored; null: any")
    workers: int = Field(default=1, ge=1, description="Processes of the service; each decides on its own")
    feature_budget: float = Field(
        default=0.02, description="Seconds a payment waits for features before it is degraded"
    )
    features_stale_after: timedelta | None = Field(
        default=timedelta(minutes=5), description="Age of the stream's last word from which answers say so; null: never"
    )
    feature_timeout: float = Field(default=0.25, description="Seconds the online store may take for one answer")
    log_timeout: float = Field(default=0.25, description="Seconds the decision log may take before the journal is used")
    decision_log: Literal["redis", "kafka"] = Field(default="redis", description="Where decisions go on record first")
    reasons: Literal["off", "flagged", "all"] = Field(
        default="all", description="Which answers say why: none, those that are not approved, or each"
    )
    degraded_review_from: float = Field(
        default=100.0, description="Amount from which a payment decided without stored features is at least reviewed"
    )
    review_threshold: float | None = Field(default=None, description="Overrides the model's own threshold")

    chargeback_fee: float = Field(default=20.0, ge=0, description="What a missed fraud costs beside its amount")
    recovered: float = Field(default=0.0, ge=0, le=1, description="Share of a missed fraud's amount that comes back")
    review_cost: float = Field(default=3.0, ge=0, description="What it costs to have a payment looked at")
    review_caught: float = Field(default=0.9, ge=0, le=1, description="Share of the frauds reviewed that are seen")
    review_insult: float = Field(default=0.5, ge=0, description="What it costs to keep an honest payment waiting")
    insult_cost: float = Field(default=10.0, ge=0, description="What it costs to decline an honest payment")
    insult_share: float = Field(default=0.03, ge=0, description="And the share of its amount, the margin lost")
    review_capacity: float | None = Field(
        default=None, ge=0, description="Payments a day that people can look at; null: one in a hundred"
    )

    control_share: float = Field(
        default=0.0, ge=0, le=1, description="Share of would-be declines that are let pass, to learn what they were"
    )
    control_max_amount: float = Field(default=100.0, ge=0, description="Largest amount that is let pass so")
    control_key: str | None = Field(
        default=None, min_length=16, repr=False, description="Keys who is let pass, so that nobody can tell beforehand"
    )

    api_keys: Path | None = Field(default=None, description="File of API keys (`bentos.keys`); null: none asked for")
    open: bool = Field(default=False, description="Let other machines in without API keys: a gateway asks for them")
    tls_cert: Path | None = Field(default=None, description="The service's certificate chain, PEM; null: plain HTTP")
    tls_key: Path | None = Field(default=None, description="Its private key, PEM; null: in the same file")
    tls_client_ca: Path | None = Field(default=None, description="CAs whose client certificates are let in; null: any")
    cors_origins: str = Field(default="", description="Origins whose pages may call the API, commas between")
    log_key: str | None = Field(default=None, repr=False, description="Keys the card hashes in logs; null: random")

    metrics: bool = Field(default=True, description="Count and export; off, nothing is counted and no /metrics served")
    metrics_host: str = Field(default="127.0.0.1", description="Where /metrics of the jobs and the monitor listen")
    monitor_port: int = Field(default=3010, description="The monitor's page and /metrics")
    stream_metrics_port: int | None = Field(default=3011, description="The stream job's /metrics; null: none")
    decisions_metrics_port: int | None = Field(default=3012, description="/metrics of `stream_jobs.decisions`")
    feedback_metrics_port: int | None = Field(default=3013, description="/metrics of `stream_jobs.feedback`")
    prometheus_url: str = Field(default="http://127.0.0.1:9090", description="Whose alerts the status page shows")
    alertmanager_url: str = Field(default="http://127.0.0.1:9093", description="Who is told of alerts, and tells on")
    alert_webhook: Path | None = Field(
        default=None, description="File with the address that is told of alerts; null: nobody"
    )
    monitor_scrape: timedelta = Field(default=timedelta(seconds=5), description="Time between the page's figures")
    jobs_after: timedelta = Field(default=timedelta(minutes=1), description="From the monitor's start to its first job")
    job_timeout: timedelta = Field(default=timedelta(minutes=30), description="How long a job of the monitor may take")
    drift_every: timedelta | None = Field(
        default=timedelta(hours=1), description="Period of the drift job; null: never"
    )
    quality_every: timedelta | None = Field(default=timedelta(hours=1), description="Period of the live-quality job")
    skew_every: timedelta | None = Field(default=timedelta(hours=6), description="Period of the skew audit")

    loop_every: timedelta | None = Field(
        default=None, description="Period of `training.loop`, which rolls back and trains again by itself; null: never"
    )
    loop_promotes: bool = Field(
        default=False, description="The loop makes champion what its rounds made and the gates passed; off: challenger"
    )
    loop_margin: float = Field(default=0.05, ge=0, description="How far below its promise a live figure may be")
    loop_least_frauds: int = Field(
        default=100, ge=1, description="Frauds from which a figure without an interval is believed"
    )
    loop_drift_share: float = Field(default=0.3, gt=0, le=1, description="Share of drifted columns that asks for it")
    loop_stale_after: timedelta = Field(
        default=timedelta(hours=6), description="Age from which a job's result is not acted on"
    )
    loop_probation: timedelta = Field(
        default=timedelta(days=28), description="Time after its promotion in which a champion is rolled back"
    )
    loop_again: timedelta = Field(default=timedelta(days=7), description="Least time between two rounds of the loop")
    loop_train_days: int = Field(default=28, ge=1, description="Days that a round of the loop trains on")
    loop_test_days: int = Field(default=14, ge=1, description="Days that it tests on, a label delay later")

    traces_endpoint: str | None = Field(default=None, description="OTLP/HTTP collector, its base address; null: none")
    traces_share: float = Field(default=0.01, ge=0, le=1, description="Share traced of payments that say nothing of it")

    transport: Literal["redis", "kafka"] = Field(default="redis", description="What carries the streams to the jobs")
    kafka_bootstrap: str = Field(default="127.0.0.1:9092", description="Kafka brokers, host:port with commas between")
    kafka_security: Literal["plaintext", "ssl", "sasl_ssl"] = Field(
        default="plaintext", description="How brokers are spoken to; sasl_ssl gives them a name and a password too"
    )
    kafka_ca: Path | None = Field(default=None, description="CAs of the brokers' certificates, PEM; null: the system's")
    kafka_username: str | None = Field(default=None, description="The name for sasl_ssl, by SCRAM-SHA-512")
    kafka_password: str | None = Field(default=None, repr=False, description="Its password")
    kafka_partitions: int = Field(default=8, ge=1, description="Partitions of a topic that is keyed by card")
    allowed_lateness: timedelta = Field(default=timedelta(minutes=10), description="How late an event may be and count")
    transactions_stream: str = Field(default="transactions", description="The stream or topic of payments")
    decisions_stream: str = Field(default="decisions", description="The stream or topic of the decision log")
    decisions_group: str = Field(default="decisions.table", description="Who carries decisions on to Postgres")
    predictions_topic: str = Field(default="predictions", description="Where decisions are told over Kafka")
    feedback_stream: str = Field(default="feedback", description="The stream or topic of feedback")
    feedback_group: str = Field(default="feedback.labels", description="Who carries feedback into the label history")
    feature_updates: bool = Field(default=False, description="Publish each fresh state's features as they change")
    feature_updates_stream: str = Field(default="feature-updates", description="The stream or topic they go to")
    dead_letter_stream: str = Field(
        default="transactions.dead", description="Where what cannot be processed is kept, with the reason"
    )
    consumer_group: str = Field(default="velocity", description="The stream job's; history's is named after it")
    history_apart: bool = Field(default=False, description="`stream_jobs.history` runs as a process of its own")

    @property
    def fallback_model_name(self) -> str:
        """The registered model over the request alone, which decides when stored features are away."""
        return self.request_model_name or f"{self.model_name}-request"

    @property
    def progress_key(self) -> str:
        """The Redis hash that says how far the stream job is."""
        return f"{self.consumer_group}:up-to"

    @property
    def history_group(self) -> str:
        """The consumer group that carries the stream into history."""
        return f"{self.consumer_group}.history"

    @property
    def offline_folder(self) -> Path:
        """Below it the offline store's files: one folder of Parquet files per table, and saved training sets."""
        return self.home / "offline"

    @property
    def offline_path(self) -> Path | str:
        """Where history lies: `offline_folder`, or the address of the full profile's Postgres."""
        return self.postgres_url if self.profile == "full" else self.offline_folder

    @property
    def registry(self) -> str:
        """SQLAlchemy address of the Feast registry."""
        if self.registry_url:
            return self.registry_url
        if self.profile == "full":
            return self.postgres_url.replace("postgresql://", "postgresql+psycopg://", 1)
        return f"sqlite:///{self.home / 'registry.db'}"


@lru_cache(maxsize=1)
def settings() -> Settings:
    """The process's settings, read once. Raises `NotADirectoryError` if FRAUD_SECRETS names no folder."""
    folder = environ.get("FRAUD_SECRETS")
    if folder is not None and not Path(folder).is_dir():
        raise NotADirectoryError(f"FRAUD_SECRETS is {folder!r}: no such folder; mount the secrets there, or unset it.")
    return Settings(_secrets_dir=folder)  # type: ignore[call-arg] # a keyword of BaseSettings that types do not show
