"""Puts an `Access` in force from the settings, and keeps it in step with its file while the service runs.

The file is looked at by a thread of its own, once a second, so that no request ever waits for a disk. A file that
breaks while the service runs changes nothing and is reported once.
"""

from __future__ import annotations

import ipaddress
import logging
import os
import socket
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

from bentos.access import Access
from bentos.key_file import Insecure, InvalidKeys, read_keys
from feature_repo.settings import Settings

logger = logging.getLogger("bentoml.service.tollgate")

EVERY_SECONDS = 1.0


class Exposed(Insecure):
    """Anyone who reaches the service could use it."""


class KeyWatch:
    """An `Access` and the thread behind it, which ends with `close` or with the process."""

    def __init__(self, path: Path, access: Access, seen: tuple[int, ...], every: float = EVERY_SECONDS) -> None:
        self._path = path
        self._access = access
        self._seen = seen
        self._every = every
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="keys", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the thread."""
        self._closed.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._closed.wait(self._every):
            self.look()

    def look(self) -> None:
        """Read the file again if it is another than the one last read."""
        found = _state(self._path)
        if found == self._seen:
            return
        self._seen = found  # before reading: what is written meanwhile is found by the next look
        try:
            keys = read_keys(self._path)
        except InvalidKeys as error:
            logger.error("%s The keys read before stay in force.", error)
            return
        self._access.replace(keys)
        logger.info("API keys read again: %d in force.", len(keys))


def open_access(current: Settings, workers: int) -> tuple[Access, KeyWatch | None]:
    """The access these settings name, for one of a service's workers. Raises `InvalidKeys`."""
    if current.api_keys is None:
        return Access(None), None
    seen = _state(current.api_keys)
    access = Access(read_keys(current.api_keys), workers)
    return access, KeyWatch(current.api_keys, access, seen)


def check_exposure(current: Settings, host: str) -> None:
    """Raise `Exposed` for a service without keys on an address that other machines reach, unless FRAUD_OPEN says so."""
    if current.api_keys is not None or current.open or _is_loopback(host):
        return
    rule = "without API keys only this machine may reach it"
    way_out = "Set FRAUD_API_KEYS (see `python -m bentos.keys new --help`), or FRAUD_OPEN=true behind a gateway"
    raise Exposed(f"The service listens on {host!r}: {rule}. {way_out} that asks for keys itself.")


def listening_host(current: Settings, arguments: Sequence[str] | None = None) -> str:
    """The address this process listens on, which `bentoml serve --host` decides and not the settings.

    A BentoML worker is handed its socket by number (`--fd`), and the socket knows; FRAUD_HOST where there is none.
    """
    given = list(sys.argv if arguments is None else arguments)
    try:
        descriptor = os.dup(int(given[given.index("--fd") + 1]))
    except (ValueError, IndexError, OSError):
        return current.host
    with socket.socket(fileno=descriptor) as listening:
        name = listening.getsockname()
    return name[0] if isinstance(name, tuple) else "localhost"  # a path is a socket of this machine


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _state(path: Path) -> tuple[int, ...]:
    try:
        found = path.stat()
    except OSError:
        return ()
    return (found.st_ino, found.st_mtime_ns, found.st_size, found.st_mode)
