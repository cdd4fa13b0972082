"""The compiled reader against Feast's own: the same vectors, bit for bit, whatever is stored."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import Value
from msgspec.structs import replace
from redis import Redis

from bentos.compiled import CompiledReader
from bentos.errors import Unavailable
from bentos.features import FeastReader
from bentos.payments import Asked, asked
from feature_repo.online import online_rows
from feature_repo.schema import Transaction
from feature_repo.settings import Settings
from feature_repo.store import apply
from feature_repo.window_state import Events, code, to_us, update
from feature_repo.windows import spec_of_view

NOW = datetime(2024, 5, 1, 12, 0, 0, 123456, tzinfo=UTC)
CARDS = ["c0", "c1", "c2", "ünïcode"]
MERCHANTS = ["m0", "m1"]


def random_state(spec: Any, random: np.random.Generator) -> bytes:
    n = int(random.integers(1, 40))
    # Some lie minutes back, some weeks.
    ts = to_us(NOW) - (40 * 86_400_000_000 * random.random(n) ** 6).astype(np.int64)
    values = random.lognormal(3, 1, (len(spec.values), n))
    values[random.random(values.shape) < 0.1] = np.nan
    distinct = np.array(
        [[code(f"d{d}") for d in row] for row in random.integers(0, 5, (len(spec.distinct), n))], np.int64
    )
    ids = np.array([code(f"e{i}") for i in range(n)], np.int64)
    events = Events(ts, ids, values, distinct.reshape(len(spec.distinct), n), ts)
    return update(spec, None, events, max_events=10).state


@pytest.fixture
def current(redis_server: str, tmp_path: Path) -> Settings:
    Redis.from_url(redis_server).flushall()
    # A busy machine may be slow; the one test that is about time sets its own limit.
    settings = Settings(home=tmp_path, redis_url=redis_server, max_age=None, feature_timeout=10)
    store = apply(settings)
    write = store._get_provider().online_store.online_write_batch
    random = np.random.default_rng(5)
    for name, entities in (("card_velocity", CARDS), ("merchant_velocity", MERCHANTS), ("merchant_risk", MERCHANTS)):
        view = store.get_stream_feature_view(name)
        spec = spec_of_view(view)
        made = {entity: random_state(spec, random) for entity in entities[:-1]}  # the last has nothing stored
        write(store.config, view, list(online_rows(view, spec, made.items())), None)
    profiles = [
        {"home_country": Value(string_val="GB"), "count_90d": Value(double_val=3.0)},
        {"home_country": Value(string_val="FR"), "account_opened_us": Value(int64_val=0),
         "birth_year": Value(int64_val=1980), "amount_mean_90d": Value(double_val=20.5),
         "amount_std_90d": Value(double_val=0.0)},
        {"home_country": Value(), "amount_mean_90d": Value(double_val=12.25), "amount_std_90d": Value(double_val=2.5)},
    ]  # fmt: skip
    names = [field.name for field in store.get_feature_view("card_profile").features]
    rows = []
    for entity, profile in zip(CARDS, profiles, strict=False):
        key = EntityKey(join_keys=["card_id"], entity_values=[Value(string_val=entity)])
        rows.append((key, {name: profile.get(name, Value()) for name in names}, NOW, None))
    write(store.config, store.get_feature_view("card_profile"), rows, None)
    return settings


def payments() -> list[Asked]:
    made = []
    for n, card in enumerate([*CARDS, "nobody"]):
        for m, merchant in enumerate([*MERCHANTS, "nowhere"]):
            made.append(
                Transaction(
                    transaction_id=f"t{n}{m}",
                    timestamp=NOW + timedelta(microseconds=7 * n, hours=m),
                    card_id=card,
                    merchant_id=merchant,
                    amount=10.0 + n,
                    merchant_category=[None, "grocery", "space tourism"][m],
                    country=[None, "GB", "FR"][(n + m) % 3],
                    channel=[None, "pos", "online"][n % 3],
                )
            )
    return [asked(one) for one in made]


@pytest.mark.parametrize("few", [8, 1])
def test_it_reads_what_feast_reads_for_stored_missing_and_null_features(
    current: Settings, few: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bentos.compiled.FEW", few)
    by_feast, compiled = FeastReader(current), CompiledReader(current)
    assert compiled.columns == by_feast.columns
    assert compiled.feature_service == by_feast.feature_service
    expected, found = by_feast.read(payments()), compiled.read(payments())
    np.testing.assert_array_equal(found.vectors, expected.vectors)
    assert found.ages == expected.ages
    assert found.incomplete == expected.incomplete
    assert set(found.incomplete) == {True, False}
    assert np.isfinite(found.vectors).any(axis=0).sum() > 55  # not a comparison of nulls


def test_many_of_whom_nothing_is_stored_or_only_numbers_are(current: Settings) -> None:
    store = apply(current)
    names = [field.name for field in store.get_feature_view("card_profile").features]
    rows = [
        (
            EntityKey(join_keys=["card_id"], entity_values=[Value(string_val=f"k{n}")]),
            {name: Value(double_val=n / 7) if name.startswith("amount_") else Value() for name in names},
            NOW,
            None,
        )
        for n in range(20)
    ]
    write = store._get_provider().online_store.online_write_batch
    write(store.config, store.get_feature_view("card_profile"), rows, None)
    by_feast, compiled = FeastReader(current), CompiledReader(current)
    known = [one._replace(payment=replace(one.payment, card_id=f"k{n}")) for n, one in enumerate(payments())]
    nobody = [one._replace(payment=replace(one.payment, card_id=f"n{n}")) for n, one in enumerate(payments())]
    for asked_of in (known, nobody, [*nobody, *known]):
        np.testing.assert_array_equal(compiled.read(asked_of).vectors, by_feast.read(asked_of).vectors)


def test_a_row_does_not_depend_on_what_else_is_read_with_it(current: Settings) -> None:
    compiled = CompiledReader(current)
    together = compiled.read(payments()).vectors
    alone = np.concatenate([compiled.read([payment]).vectors for payment in payments()])
    np.testing.assert_array_equal(together, alone)


def test_a_store_that_does_not_answer_is_unavailable(current: Settings) -> None:
    compiled = CompiledReader(current.model_copy(update={"feature_timeout": 0.25}))
    client = Redis.from_url(current.redis_url)
    client.execute_command("CLIENT", "PAUSE", 2_000, "ALL")
    try:
        with pytest.raises(Unavailable):
            compiled.read(payments())
    finally:
        client.execute_command("CLIENT", "UNPAUSE")
    assert CompiledReader(current).read(payments()[:1]).vectors.shape == (1, len(compiled.columns))
