"""What only Redis Streams can get wrong: a reply that is lost counts as given."""

from __future__ import annotations

from typing import Any

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError

from stream_jobs.transports import redis_streams
from tests.integration.logs import RedisLog, reading


@pytest.mark.parametrize("bound", [1_000, 10])
def test_records_whose_reply_was_lost_are_given_after_all(redis_server: str, bound: int) -> None:
    log = RedisLog(redis_server)
    sent = [b"%d" % number for number in range(30)]
    with reading(log.transport(in_flight=bound)) as run:
        acknowledger = log.transport().acknowledger()
        lose_one_reply(run.parts[log.name]._client)
        given = []
        for at in (0, 10, 20):
            log.publish(sent[at : at + 10])
            while len(given) < at + 10:
                more = run.take(1, 5)
                given += more
                acknowledger.acknowledge(more[0].partition, [record.id for record in more])
        assert [record.body for record in given] == sent


def lose_one_reply(client: Any) -> None:
    """The connection breaks between what the server does and the answer, the first time there are records."""
    read = client.xreadgroup

    def broken(*arguments: Any, **options: Any) -> Any:
        found = read(*arguments, **options)
        if not found or not found[0][1]:
            return found
        client.xreadgroup = read
        raise RedisConnectionError("Connection closed by server.")

    client.xreadgroup = broken


def test_a_server_that_stays_away_is_not_waited_for_for_ever(
    redis_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_streams, "PATIENCE", 0.3)
    log = RedisLog(redis_server)
    with reading(log.transport()) as run:

        def broken(*_: Any, **__: Any) -> Any:
            raise RedisConnectionError("Connection refused.")

        run.parts[log.name]._client.xreadgroup = broken
        with pytest.raises(RedisConnectionError, match="Connection refused"):
            run.take(1)
