"""Makes, lists and revokes API keys: `python -m bentos.keys new | list | revoke`.

A key is shown once, on standard output, and kept nowhere; running services take a change within seconds.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from bentos.key_file import ApiKey, InvalidKeys, Rate, changing, new_key, read_keys
from feature_repo.settings import settings

DAYS = 90.0


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code: 0 done, 1 refused."""
    given = _parser().parse_args(arguments)
    path: Path | None = given.file or settings().api_keys
    if path is None:
        print("No file of keys: give --file, or set FRAUD_API_KEYS.", file=sys.stderr)
        return 1
    try:
        if given.command == "new":
            _new(path, given)
        elif given.command == "revoke":
            _revoke(path, given.id)
        else:
            _list(path)
    except (InvalidKeys, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _new(path: Path, given: argparse.Namespace) -> None:
    rate = None if given.rate is None else Rate(given.rate, given.burst or given.rate)
    expires = datetime.now(UTC).replace(microsecond=0) + timedelta(days=given.days) if given.days else None
    with changing(path) as keys:
        key, entry = new_key(given.id, given.scopes.split(","), rate, expires, keys)
        keys.append(entry)
    print(f"Key {entry.id!r} is in force ({_told(entry)}). This is the only time it is shown:", file=sys.stderr)
    print(key)


def _revoke(path: Path, name: str) -> None:
    with changing(path) as keys:
        found = [key for key in keys if key.id == name]
        if not found:
            held = ", ".join(key.id for key in keys) or "none"
            raise InvalidKeys(f"Key {name!r} is not in {str(path)!r}; there: {held}.")
        keys.remove(found[0])
    print(f"Key {name!r} is revoked; running services refuse it within seconds.")


def _list(path: Path) -> None:
    now = datetime.now(UTC)
    for key in read_keys(path):
        print(f"{key.id:24} {'expired' if key.expired(now) else 'in force':9} {_told(key)}")


def _told(key: ApiKey) -> str:
    rate = "unlimited" if key.rate is None else f"{key.rate.per_second:g}/s, {key.rate.burst:g} at once"
    until = "never expires" if key.expires is None else f"expires {key.expires.isoformat()}"
    return f"{','.join(key.scopes)}; {rate}; {until}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bentos.keys", description="The API keys of the service.")
    commands = parser.add_subparsers(dest="command", required=True)
    making = commands.add_parser("new", help="make a key, show it once and keep its hash")
    making.add_argument("--id", required=True, help="public name: small letters, digits, dots and dashes")
    making.add_argument("--scopes", required=True, help="of score, feedback, admin; commas between")
    making.add_argument("--rate", type=float, help="payments per second, over all workers; default: unlimited")
    making.add_argument("--burst", type=float, help="payments at once after a pause; default: one second's")
    making.add_argument("--days", type=float, default=DAYS, help=f"days until it expires; 0: never; default: {DAYS:g}")
    listing = commands.add_parser("list", help="what is in force")
    revoking = commands.add_parser("revoke", help="take a key out of force")
    revoking.add_argument("id")
    for each in (making, listing, revoking):
        each.add_argument("--file", type=Path, help="the file of keys; default: FRAUD_API_KEYS")
    return parser


if __name__ == "__main__":
    sys.exit(main())
