"""The head of a plain request: what may be read without HTTP's whole grammar, and everything else told from it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from bentos.lane import JSON_HEADERS

_FIELD = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+):[ \t]*([\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?)[ \t]*")
_NOT_PLAIN = frozenset({b"transfer-encoding", b"content-encoding", b"expect", b"upgrade", b"te", b"trailer"})
_LONGEST_LENGTH = 9
"""Digits of a content-length."""


class Head(NamedTuple):
    """A plain request's headers, the names in lower case, and the length of its body."""

    headers: Sequence[tuple[bytes, bytes]]
    length: int


def read_head(lines: bytes) -> Head | None:
    """The head in the lines after the request line, without the last line's end; None where it is not plain.

    Plain is: each header well-formed in ASCII on its own line, one content-length, JSON, and nothing that has to do
    with encodings, upgrades or the connection's end.
    """
    headers: list[tuple[bytes, bytes]] = []
    length: int | None = None
    for line in lines.split(b"\r\n"):
        found = _FIELD.fullmatch(line)
        if found is None:
            return None
        name, value = found[1].lower(), found[2]
        if name in _NOT_PLAIN:
            return None
        if name == b"content-length":
            if length is not None or not value.isdigit() or len(value) > _LONGEST_LENGTH:
                return None
            length = int(value)
        elif (name == b"content-type" and value not in JSON_HEADERS) or (
            name == b"connection" and value.lower() != b"keep-alive"
        ):
            return None
        headers.append((name, value))
    return None if length is None else Head(headers, length)
