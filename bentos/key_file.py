"""The file of API keys: what a line of it says, how it is read, and how it is changed. It holds hashes, never keys.

One JSON document, so that a file cut short is told from one with fewer keys; it is replaced whole, never written into.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import secrets
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Annotated, Literal

import msgspec

KEY_BYTES = 32
_ID = Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9]([a-z0-9.-]{0,46}[a-z0-9])?\Z")]
_SHA256 = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}\Z")]
_SCOPES = Annotated[tuple[Literal["score", "feedback", "admin"], ...], msgspec.Meta(min_length=1)]
_POSITIVE = Annotated[float, msgspec.Meta(gt=0, le=1e9)]


class Insecure(Exception):
    """The settings would leave the API open to whom it should not be, or shut to all; the service does not start."""


class InvalidKeys(Insecure):
    """The file of keys cannot be used."""


class Rate(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Payments per second over all workers of a service, and how many at once after a pause."""

    per_second: _POSITIVE
    burst: _POSITIVE


class ApiKey(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A key as the file knows it. `rate` None: unlimited. `expires` None: never; else aware."""

    id: _ID
    sha256: _SHA256
    scopes: _SCOPES
    rate: Rate | None = None
    expires: Annotated[datetime, msgspec.Meta(tz=True)] | None = None

    def expired(self, now: datetime) -> bool:
        """Whether the key is no longer taken."""
        return self.expires is not None and now >= self.expires


class _Document(msgspec.Struct, forbid_unknown_fields=True):
    keys: list[ApiKey]


def read_keys(path: Path) -> list[ApiKey]:
    """The keys in the file; none is a file that lets nobody in. Raises `InvalidKeys`."""
    try:
        with path.open("rb") as file:
            writable = os.fstat(file.fileno()).st_mode & 0o002
            document = msgspec.json.decode(file.read(), type=_Document)
    except OSError as error:
        why = f"cannot be read ({error.strerror})"
        raise _invalid(path, f"{why}; make it with `python -m bentos.keys new`") from None
    except ValueError as error:  # msgspec's errors are ValueErrors, and so is a body that is no UTF-8
        raise _invalid(path, f"{error}; mend it, or make keys with `python -m bentos.keys new`") from None
    if writable:
        raise _invalid(path, "anyone may write to it, and so let themselves in; `chmod o-w` it")
    twice = [name for name, times in Counter(key.id for key in document.keys).items() if times > 1]
    if twice:
        raise _invalid(path, f"id {twice[0]!r} occurs twice; give each key an id of its own")
    return document.keys


def new_key(
    name: str, scopes: Sequence[str], rate: Rate | None, expires: datetime | None, taken: Sequence[ApiKey]
) -> tuple[str, ApiKey]:
    """A fresh key and its entry. Raises `InvalidKeys` for an id that is taken or no id, or for a scope there is not."""
    if any(key.id == name for key in taken):
        raise InvalidKeys(f"Key {name!r} exists. To rotate: make one with another id, then revoke {name!r}.")
    key = f"tollgate_{name}_{secrets.token_urlsafe(KEY_BYTES)}"
    digest = hashlib.sha256(key.encode()).hexdigest()
    entry = {"id": name, "sha256": digest, "scopes": list(scopes), "rate": rate, "expires": expires}
    try:
        return key, msgspec.convert(msgspec.to_builtins(entry), ApiKey)
    except msgspec.ValidationError as error:
        raise InvalidKeys(f"Key {name!r}: {error}. See `python -m bentos.keys new --help`.") from None


@contextlib.contextmanager
def changing(path: Path) -> Iterator[list[ApiKey]]:
    """The file's keys, to be changed in place; the file is replaced at the end unless the block raises.

    One caller at a time changes it. A file that is not there is made, for its owner's eyes only.
    """
    path = path.resolve()  # a link stays a link
    path.parent.mkdir(parents=True, exist_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        keys = read_keys(path) if path.exists() else []
        yield keys
        _replace(path, msgspec.json.format(msgspec.json.encode(_Document(keys)), indent=1) + b"\n")
        os.fsync(folder)
    finally:
        os.close(folder)


def _replace(path: Path, content: bytes) -> None:
    mode = path.stat().st_mode & 0o777 if path.exists() else 0o600
    descriptor, draft = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            os.fchmod(file.fileno(), mode)
            file.flush()
            os.fsync(file.fileno())
        Path(draft).replace(path)
    except BaseException:
        Path(draft).unlink(missing_ok=True)
        raise


def _invalid(path: Path, rule: str) -> InvalidKeys:
    return InvalidKeys(f"API keys {str(path)!r}: {rule}.")
