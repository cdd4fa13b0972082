"""What a log may say of a card: a keyed hash, the same for the same card as long as the key is the same.

Card numbers are few enough to try all of, so a hash without a key would hide nothing. FRAUD_LOG_KEY joins the logs of
several processes; without it each start has a key of its own, and nobody can tell a card from its hash later.
"""

from __future__ import annotations

import hashlib
import logging
import re
import secrets
import traceback
from collections.abc import Iterable
from functools import lru_cache

from feature_repo.settings import settings

HASH_BYTES = 8
API_KEY = re.compile(r"\b(tollgate_[a-z0-9.-]+_)[A-Za-z0-9_-]{16,}")
"""A key of the API, with its public part first."""

PASSWORD = re.compile(r"(://[^/\s:@]*:)[^/\s@]+@")
"""A password in an address, with what stands before it first."""

OURS = ("bentos", "feature_repo", "monitoring", "stream_jobs", "training")
OF_A_SERVER = ("cimpl", "httpx", "onnxruntime", "psycopg", "sqlite3")
"""Packages whose errors tell of a server or a file, and nothing that was sent there; Kafka's client is the first."""

OF_A_CONNECTION = ("OSError", "ConnectionError", "TimeoutError")
"""Names of errors, of Python and of redis-py, that tell an address."""

WITHHELD = "(message withheld)"


@lru_cache(maxsize=1)
def _process_key() -> bytes:
    given = settings().log_key
    return secrets.token_bytes(32) if given is None else hashlib.blake2b(given.encode(), digest_size=32).digest()


def hashed(card_id: str, key: bytes | None = None) -> str:
    """A card's name in a log, such as `card:1f0c9a5be2d07731`; `key` (up to 64 bytes) instead of the process's own."""
    digest = hashlib.blake2b(
        card_id.encode(errors="surrogatepass"),
        digest_size=HASH_BYTES,
        key=key or _process_key(),
        person=b"card in a log",
    )
    return f"card:{digest.hexdigest()}"


def without_cards(text: str, card_ids: Iterable[str]) -> str:
    """The text with each of the cards' ids replaced by its hash, the longest id first."""
    for card_id in sorted(set(card_ids), key=len, reverse=True):
        if card_id:
            text = text.replace(card_id, hashed(card_id))
    return text


def told(error: BaseException, card_ids: Iterable[str] = ()) -> str:
    """An error's traceback as it may be logged: where it was raised, and `brief` of it and of its causes."""
    lines = []
    for each in _chain(error):
        lines += [*traceback.format_tb(each.__traceback__), brief(each, card_ids), "\n"]
    return "".join(lines).rstrip()


def brief(error: BaseException, card_ids: Iterable[str] = ()) -> str:
    """An error's type, and its message where that is our own code's or a server's.

    Another library's message may quote what it was given, in a form that no search for a card's id would find; so does
    the detail of a Postgres error, which shows the row.
    """
    kind = type(error)
    module, message = kind.__module__.split(".", 1)[0], str(error)
    first = getattr(getattr(error, "diag", None), "message_primary", None)
    connection = any(base.__name__ in OF_A_CONNECTION for base in kind.__mro__)
    if first:
        message = first
    elif module == "redis" and not connection:
        code = message.split(" ", 1)[0]
        message = f"{code} {WITHHELD}" if code.isupper() else WITHHELD
    elif not (connection or module in OURS or module in OF_A_SERVER):
        message = WITHHELD
    return f"{kind.__module__}.{kind.__qualname__}: {without_cards(message, card_ids)}"


class Private(logging.Filter):
    """Leaves in a record of its errors what `told` leaves, of a key of the API its public part, and of no address its
    password."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Keep every record, mended."""
        if isinstance(record.args, tuple):
            record.args = tuple(_mended(each) for each in record.args)
        if record.exc_info and record.exc_info[1] is not None:
            record.exc_text, record.exc_info = told(record.exc_info[1]), None
        message = record.getMessage()
        mended = PASSWORD.sub(r"\1...@", API_KEY.sub(r"\1...", message))
        if mended != message:
            record.msg, record.args = mended, ()
        return True


def _mended(argument: object) -> object:
    if not isinstance(argument, BaseException) or type(argument).__module__.split(".", 1)[0] in OURS:
        return argument
    return brief(argument)


def keep_logs_private() -> None:
    """Put `Private` before whatever this process's loggers write to; once its logging is set up, and again at will."""
    loggers = [logging.getLogger(), *(each for each in logging.root.manager.loggerDict.values())]
    handlers = [handler for each in loggers if isinstance(each, logging.Logger) for handler in each.handlers]
    for handler in [*handlers, *([logging.lastResort] if logging.lastResort else [])]:
        if not any(isinstance(each, Private) for each in handler.filters):
            handler.filters.insert(0, Private())


def _chain(error: BaseException) -> list[BaseException]:
    found: list[BaseException] = []
    step: BaseException | None = error
    while step is not None and step not in found:
        found.append(step)
        step = step.__cause__ or (None if step.__suppress_context__ else step.__context__)
    return found[::-1]
