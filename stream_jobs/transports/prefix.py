"""The contiguous prefix: how records done in any order move one position that may only pass over what is done.

A log remembers one position per group and partition, not a set of records. The position may stand at n only when
everything below n is done; whatever is done beyond a record that is not waits here, and is delivered again if the job
dies before. Positions that hold no record (Kafka leaves some out, a file's lines are bytes long) belong to the record
after them: its id then names the whole span.
"""

from __future__ import annotations


class Prefix:
    """Positions of one partition; everything below `end` is done."""

    def __init__(self, end: int) -> None:
        self.end = end
        self._ahead: dict[int, int] = {}

    def done(self, first: int, last: int) -> None:
        """Note that the record which stands for the positions `first` to `last`, both included, is done."""
        after = last + 1
        if first > self.end:
            self._ahead[first] = after
            return
        self.end = max(self.end, after)
        while (after := self._ahead.pop(self.end, 0)) > 0:
            self.end = after

    def __len__(self) -> int:
        """Records that are done and wait for one before them."""
        return len(self._ahead)


def span_id(first: int, last: int) -> str:
    """The id of the record that stands for these positions: `7`, or `5-7`."""
    return str(last) if first == last else f"{first}-{last}"


def span(identifier: str) -> tuple[int, int]:
    """The positions that an id of `span_id` stands for."""
    first, _, last = identifier.rpartition("-")
    return int(first or last), int(last)
