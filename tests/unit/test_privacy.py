"""What a log may say: no card, no key, and of an error what tells of a server rather than of a payment."""

from __future__ import annotations

import io
import logging
import traceback
from types import SimpleNamespace

import pytest
import redis

from bentos.key_file import InvalidKeys
from monitoring import privacy

KEY = "tollgate_shop-1_" + "A_-9" * 11


def test_a_card_is_logged_by_a_hash_that_only_the_key_makes():
    one = privacy.hashed("4000-0001", b"k" * 32)
    assert one == privacy.hashed("4000-0001", b"k" * 32)
    assert len({one, privacy.hashed("4000-0002", b"k" * 32), privacy.hashed("4000-0001", b"x" * 32)}) == 3
    assert "4000" not in one
    assert privacy.without_cards("card 4000-00011 and 4000-0001", ["4000-0001", "4000-00011"]).count("card:") == 2


def failing(card_id: str) -> None:
    try:
        {}[f"{card_id!r} quoted otherwise"]
    except KeyError as error:
        raise InvalidKeys(f"no state of {card_id}") from error


def test_an_errors_traceback_tells_where_and_no_card():
    card = "-".join(("4000", "0001"))  # put together here, since a traceback also quotes lines of code
    with pytest.raises(InvalidKeys) as caught:
        failing(card)
    assert card in "".join(traceback.format_exception(caught.value))
    told = privacy.told(caught.value, [card])
    assert card not in told
    assert "in failing" in told
    assert "builtins.KeyError: (message withheld)" in told
    assert f"InvalidKeys: no state of {privacy.hashed(card)}" in told


class Refusal(Exception):
    """As a Postgres driver's: the row is in the detail, which is part of the message."""

    def __init__(self, message: str) -> None:
        super().__init__(f"{message} DETAIL: Failing row contains (4000).")
        self.diag = SimpleNamespace(message_primary=message)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ConnectionRefusedError(111, "Connection refused"), "[Errno 111] Connection refused"),
        (redis.ConnectionError("Error 111 connecting to 127.0.0.1:6379."), "Error 111 connecting to 127.0.0.1:6379."),
        (redis.ResponseError("MISCONF of 4000"), "MISCONF (message withheld)"),
        (redis.ResponseError("unknown command, with args: 4000"), "(message withheld)"),
        (KeyError("4000"), "(message withheld)"),
        (Refusal("null value in column"), "null value in column"),
    ],
)
def test_of_an_error_what_tells_of_a_server_is_kept(error: Exception, said: str):
    assert privacy.brief(error).split(": ", 1)[1] == said


def test_what_reaches_a_log_is_mended_whoever_wrote_it():
    written = io.StringIO()
    logger = logging.getLogger("test of privacy")
    handler = logging.StreamHandler(written)
    logger.addHandler(handler)
    try:
        privacy.keep_logs_private()
        privacy.keep_logs_private()
        assert [type(each) for each in handler.filters] == [privacy.Private]
        logger.error("sent %s: %s", KEY, KeyError("4000"))
        try:
            failing("40" + "00")
        except InvalidKeys:
            logger.exception("A request failed.")
    finally:
        logger.removeHandler(handler)
    lines = written.getvalue().splitlines()
    assert lines[0] == "sent tollgate_shop-1_...: builtins.KeyError: (message withheld)"
    assert lines[1] == "A request failed."
    assert any("in failing" in line for line in lines)
    assert "builtins.KeyError: (message withheld)" in lines


def test_a_password_in_an_address_is_cut_out_and_our_own_errors_are_quoted_as_they_are():
    url = "redis://default:s3cret@redis.example:6379/0"
    record = logging.LogRecord("x", logging.INFO, "", 0, "%s at %s", (InvalidKeys("No keys."), url), None)
    assert privacy.Private().filter(record)
    assert record.getMessage() == "No keys. at redis://default:...@redis.example:6379/0"
