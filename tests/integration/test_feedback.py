"""Feedback from the service's command to the label history, as training and the features read it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import redis

from bentos.feedback import feedback_command, read_feedback
from feature_repo import sources
from feature_repo.context import AT
from feature_repo.schema import HISTORY_SCHEMA, LABEL_DELAY, LABEL_SCHEMA
from feature_repo.settings import Settings
from feature_repo.store import apply, feature_store
from monitoring.decision_log import claim_key
from monitoring.labels import known_labels
from monitoring.processes import Platform
from stream_jobs.feedback import Carrier
from stream_jobs.label_history import publication
from tests.integration.decisions import log, made
from tests.integration.logs import unique
from tests.integration.test_decision_sink import awaited
from tests.postgres_server import Postgres
from training import backfill

HOUR = timedelta(hours=1)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, redis_server: str) -> Path:
    made_here = tmp_path_factory.mktemp("feedback")
    apply(Settings(home=made_here, redis_url=redis_server))
    return made_here


@pytest.fixture
def current(home: Path, redis_server: str, tmp_path: Path) -> Settings:
    names = {name: unique(name) for name in ("decisions", "feedback")}
    (tmp_path / "registry.db").write_bytes((home / "registry.db").read_bytes())
    return Settings(
        home=tmp_path, redis_url=redis_server, decisions_stream=names["decisions"], feedback_stream=names["feedback"]
    )


@pytest.fixture
def carrier(current: Settings) -> Iterator[Carrier]:
    made_here = Carrier(current)
    yield made_here
    made_here.close()


def say(current: Settings, number: int, kind: str, at: datetime | None = None, **fields: Any) -> int:
    """Send a statement as the service does; 1, or 0 where it was on record. `at` is when the platform got it."""
    import json

    body = {"transaction_id": f"t-{number}", "kind": kind, "occurred_at": "2026-03-05T00:00:00Z", **fields}
    feedback = read_feedback(json.dumps(body).encode(), datetime(2027, 1, 1, tzinfo=UTC), HOUR)
    command = feedback_command(feedback, current.feedback_stream)
    with redis.Redis.from_url(current.redis_url) as client:
        if at is None:
            return int(client.execute_command(*command))
        client.xadd(current.feedback_stream, {b"statement": command[5]}, id=f"{int(at.timestamp() * 1_000)}-1")
        return 1


def labels(current: Settings) -> pd.DataFrame:
    source = feature_store(current).get_data_source("labels")
    return sources.read(source, current.offline_path, LABEL_SCHEMA.names).to_pandas()


def known(current: Settings, as_of: datetime | None = None) -> dict[str, float]:
    found = known_labels(feature_store(current), current, as_of)
    return dict(zip(found["transaction_id"], found["is_fraud"], strict=True))


def carry(carrier: Carrier, now: datetime | None = None) -> None:
    while carrier.step(now or datetime.now(UTC), 0.01):
        pass


def dead(current: Settings) -> list[tuple[bytes, bytes]]:
    with redis.Redis.from_url(current.redis_url) as client:
        page: Any = client.xrange(f"{current.feedback_stream}.dead")
    return [(fields[b"statement"], fields[b"reason"]) for _, fields in page]


def test_a_chargeback_becomes_a_label_of_the_payment_that_was_decided(current: Settings, carrier: Carrier) -> None:
    log(current, [made(1), made(2)])
    before = datetime.now(UTC)
    assert say(current, 2, "chargeback", source="scheme", card_id="card-2") == 1
    carry(carrier)
    [row] = labels(current).to_dict("records")
    assert (row["transaction_id"], row["card_id"], row["merchant_id"]) == ("t-2", "card-2", "merchant-2")
    assert row["timestamp"] == made(2).transaction.timestamp
    assert row["is_fraud"] == 1.0
    assert before - timedelta(milliseconds=1) <= row["known_at"] <= datetime.now(UTC)
    assert row["published_at"] == publication(row["known_at"].to_pydatetime())
    assert dead(current) == []


def test_a_statement_sent_twice_is_one(current: Settings, carrier: Carrier) -> None:
    log(current, [made(1)])
    assert [say(current, 1, "chargeback") for _ in range(3)] == [1, 0, 0]
    carry(carrier)
    assert len(labels(current)) == 1


def test_a_later_statement_supersedes_from_its_publication_on(current: Settings, carrier: Carrier) -> None:
    log(current, [made(1)])
    first = datetime(2026, 3, 20, 9, 30, tzinfo=UTC)
    say(current, 1, "chargeback", first)
    carry(carrier, first)
    say(current, 1, "confirmed_legitimate", first + 3 * HOUR)
    carry(carrier, first + 3 * HOUR)
    say(current, 1, "chargeback", first + 3 * HOUR + timedelta(minutes=1), source="second presentment")
    carry(carrier, first + 5 * HOUR)
    assert [known(current, first + hours * HOUR) for hours in (0, 1, 3, 4, 6)] == [
        {}, {"t-1": 1.0}, {"t-1": 1.0}, {"t-1": 0.0}, {"t-1": 1.0},
    ]  # fmt: skip
    rows = labels(current).sort_values("known_at")
    assert rows["is_fraud"].tolist() == [1.0, 0.0, 1.0]
    assert [at.hour for at in rows["published_at"]] == [10, 13, 15]


def test_of_two_statements_published_at_once_the_one_known_later_counts(current: Settings, carrier: Carrier) -> None:
    log(current, [made(1), made(2)])
    at = datetime(2026, 3, 20, 9, 30, tzinfo=UTC)
    say(current, 1, "chargeback", at)
    say(current, 1, "confirmed_legitimate", at + timedelta(seconds=1))
    say(current, 2, "confirmed_legitimate", at + timedelta(seconds=2))
    say(current, 2, "chargeback", at + timedelta(seconds=3))
    carry(carrier, at + timedelta(seconds=4))
    assert known(current) == {"t-1": 0.0, "t-2": 1.0}


def test_a_batch_that_comes_again_adds_no_row(current: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    log(current, [made(number) for number in range(5)])
    for number in range(5):
        say(current, number, "chargeback")
    dying = Carrier(current)
    monkeypatch.setattr(dying._entries, "done", lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        dying.step(datetime.now(UTC), 0.01)
    dying.close()
    assert len(labels(current)) == 5
    say(current, 1, "confirmed_legitimate")
    heir = Carrier(current)
    carry(heir, datetime.now(UTC) + 2 * HOUR)  # the first batch keeps the publication it was given
    heir.close()
    rows = labels(current)
    assert len(rows) == 6
    assert rows[rows["is_fraud"] == 1.0]["published_at"].nunique() == 1
    assert known(current)["t-1"] == 0.0


def test_a_payment_whose_claim_has_expired_is_found_in_the_decision_table_or_in_history(
    current: Settings, postgres_server: Postgres
) -> None:
    from monitoring.decision_table import append, connect, create

    current = Settings(**current.model_dump(exclude={"postgres_url"}), postgres_url=postgres_server.schema())
    with connect(current.postgres_url) as connection:
        create(connection)
        append(connection, [made(3)])
    history(current, [4], made(4).transaction.timestamp)
    for number in (3, 4, 5):
        say(current, number, "chargeback")
    carrier = Carrier(current)
    carry(carrier)
    carrier.close()
    assert known(current) == {"t-3": 1.0, "t-4": 1.0}
    [(statement, reason)] = dead(current)
    assert (b'"t-5"' in statement, reason) == (True, b"no such payment was decided here, nor is it in history")


def test_what_matches_no_payment_is_put_aside_once(current: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    log(current, [made(1)])
    say(current, 1, "chargeback", card_id="card-6")
    say(current, 9, "chargeback")
    with redis.Redis.from_url(current.redis_url) as client:
        client.xadd(current.feedback_stream, {"statement": "{}"})
    dying = Carrier(current)
    monkeypatch.setattr(dying._entries, "done", lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        dying.step(datetime.now(UTC), 0.01)
    dying.close()
    heir = Carrier(current)
    carry(heir)
    heir.close()
    assert [reason for _, reason in dead(current)] == [
        b"the payment was made with another card",
        b"no such payment was decided here, nor is it in history",
        b"no statement",
    ]
    assert labels(current).empty


def history(current: Settings, numbers: list[int], at: datetime) -> None:
    """Payments in history that nobody has said anything about."""
    rows = pd.DataFrame({"transaction_id": [f"t-{number}" for number in numbers]})
    stamp = pd.Series([at] * len(rows)).astype("datetime64[us, UTC]")
    rows = rows.assign(timestamp=stamp, ingested_at=stamp, card_id="card-x", merchant_id="shop", amount=5.0)
    rows = rows.reindex(columns=HISTORY_SCHEMA.names)
    optional = [field.name for field in HISTORY_SCHEMA if field.nullable]
    source = feature_store(current).get_data_source("transactions")
    sources.append(
        source, current.offline_path, backfill._history_rows(rows.assign(**dict.fromkeys(optional))), unique("h")
    )


def test_a_payment_nobody_disputed_is_legitimate_once_its_label_delay_is_over(
    current: Settings, carrier: Carrier
) -> None:
    paid = datetime(2026, 3, 4, 12, 20, tzinfo=UTC)
    history(current, [1, 2], paid)
    history(current, [2], paid)  # once more
    say(current, 2, "chargeback", paid + HOUR)
    due = paid + LABEL_DELAY
    carry(carrier, due)
    assert known(current) == {"t-2": 1.0}
    for late in (40, 41, 60 * 5):
        carry(carrier, due + timedelta(minutes=late))
    assert known(current) == {"t-1": 0.0, "t-2": 1.0}
    [row] = [row for row in labels(current).to_dict("records") if row["transaction_id"] == "t-1"]
    assert row["known_at"] == due
    assert row["published_at"] == publication(due) == datetime(2026, 3, 11, 13, tzinfo=UTC)


def test_a_job_that_was_away_says_when_its_labels_became_readable(current: Settings, carrier: Carrier) -> None:
    paid = datetime(2026, 3, 4, 12, 20, tzinfo=UTC)
    history(current, [1], paid)
    carry(carrier, paid + LABEL_DELAY + 30 * HOUR)
    [row] = labels(current).to_dict("records")
    assert row["known_at"] == paid + LABEL_DELAY
    assert row["published_at"] == publication(paid + LABEL_DELAY + 30 * HOUR)


def test_the_features_count_a_corrected_label_once_with_what_was_known_first(
    current: Settings, carrier: Carrier
) -> None:
    log(current, [made(1)])
    said = datetime(2026, 3, 20, 9, 30, tzinfo=UTC)
    say(current, 1, "chargeback", said)
    carry(carrier, said)
    say(current, 1, "confirmed_legitimate", said + 3 * HOUR)
    carry(carrier, said + 3 * HOUR)
    store = feature_store(current)
    at = [said, said + HOUR, said + 5 * HOUR]
    asked = pd.DataFrame({"merchant_id": "merchant-1", "event_timestamp": pd.Series(at).astype("datetime64[us, UTC]")})
    asked[AT] = asked["event_timestamp"].astype("int64")
    names = ["merchant_count_is_fraud_7d", "merchant_mean_is_fraud_7d"]
    features = [f"merchant_risk_windows:{name}" for name in names]
    asked = asked.assign(amount=1.0, merchant_category=None, country=None, channel=None)
    found = store.get_historical_features(asked, features, filter_by_created_timestamp=True).to_df()
    found = found.sort_values("event_timestamp")
    assert found[names[0]].tolist() == [0.0, 1.0, 1.0]
    assert found[names[1]].tolist()[1:] == [1.0, 1.0]


def test_the_job_carries_what_the_service_recorded(current: Settings) -> None:
    log(current, [made(number) for number in range(20)])
    with Platform(current) as platform:
        for number in range(20):
            say(current, number, "chargeback" if number % 2 else "confirmed_legitimate")
        platform.start("feedback")
        awaited(lambda: len(known(current)) == 20)
    assert known(current) == {f"t-{number}": float(number % 2) for number in range(20)}


def test_a_claim_names_the_decision_of_its_payment(current: Settings) -> None:
    [entry] = log(current, [made(1)])
    with redis.Redis.from_url(current.redis_url) as client:
        assert client.get(claim_key(current.decisions_stream, "t-1")) == bytes(16) + entry.encode()
