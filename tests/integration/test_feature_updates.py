"""Whoever listens to `feature-updates` hears the features that the online store has, once they are there."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path

import pandas as pd
import pytest
from redis import Redis

from feature_repo.settings import Settings
from monitoring.processes import Platform, at_free_ports
from tests.integration.velocity_platform import START, VelocityPlatform, payments
from tests.parity.three_ways import online


@pytest.mark.parametrize("wanted", [True, False])
def test_each_changed_entity_is_told_with_its_features(tmp_path: Path, wanted: bool):
    current = at_free_ports(Settings(home=tmp_path, feature_updates=wanted))
    rows = payments(5, 60, START, timedelta(hours=3), cards=3, merchants=2)
    with Platform(current) as platform:
        job = VelocityPlatform(platform, rows.head(1).assign(transaction_id="past", card_id="x", merchant_id="y"))
        platform.start("stream")
        job.send(rows)
        job.drain()
        client: Redis = Redis.from_url(current.redis_url)
        told = [json.loads(fields[b"body"]) for _, fields in client.xrange(current.feature_updates_stream)]
        if not wanted:
            assert told == []
            return
        last = {(message["view"], message.get("card_id", message.get("merchant_id"))): message for message in told}
        assert {view for view, _ in last} == {"card_velocity", "merchant_velocity"}
        assert {entity for view, entity in last if view == "card_velocity"} == set(rows["card_id"])
        for card in rows["card_id"].unique():
            message = last["card_velocity", card]
            at = pd.Timestamp(message["as_of"])
            assert at == rows.loc[rows["card_id"] == card, "timestamp"].max() + timedelta(microseconds=1)
            asked = rows.head(1).assign(card_id=card, timestamp=at.as_unit("us"))
            found = online(job.store, asked)
            for name, value in message["features"].items():
                assert value == pytest.approx(found[name].iloc[0], nan_ok=True), name
            assert message["features"]["card_count_24h"] == (rows["card_id"] == card).sum()
