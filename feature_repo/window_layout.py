"""The bytes of a state: what its words mean under a spec, and which bytes are none of it."""

from __future__ import annotations

import json
import zlib
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from feature_repo.window_kernels import FORMAT, HEADER, SEALED_FORMAT
from feature_repo.window_sums import PARTS
from feature_repo.windows import WindowSpec, tile

Ints = npt.NDArray[np.int64]

_NO_STATE: Ints = np.empty(0, np.int64)


class InvalidState(ValueError):
    """Bytes that are no state of this view: another format, other columns, or sealed without its ledger."""


@dataclass(frozen=True)
class Layout:
    """What the kernels need of a spec, made once."""

    windows: Ints
    tiles: Ints
    n_values: int
    n_distinct: int
    magic: int
    sealed_magic: int
    retention: int

    @property
    def width(self) -> int:
        """Words of one event."""
        return 2 + self.n_values + self.n_distinct

    @property
    def sealed_width(self) -> int:
        """Words of one event of a sealed state."""
        return self.width + self.n_distinct


def layout_of(spec: WindowSpec) -> Layout:
    """The layout of a spec's states."""
    layout = spec.__dict__.get("_layout")
    if layout is None:
        layout = Layout(
            windows=np.array(spec.windows, np.int64),
            tiles=np.array([tile(w) for w in spec.windows], np.int64),
            n_values=len(spec.values),
            n_distinct=len(spec.distinct),
            magic=0x5447_0000_0000_0000 | FORMAT << 32 | _meaning(spec),
            sealed_magic=0x5447_0000_0000_0000 | SEALED_FORMAT << 32 | _meaning(spec),
            retention=spec.retention,
        )
        spec.__dict__["_layout"] = layout
    return layout


def _meaning(spec: WindowSpec) -> int:
    """32 bits that differ where a state of one spec would be misread, or reach back too little, under another."""
    columns = [spec.join_key, spec.event_id, spec.values, spec.distinct, spec.retention]
    return zlib.crc32(json.dumps(columns).encode())


def words_of(shape: Layout, spec: WindowSpec, state: bytes | None, *, sealed: bool = True) -> Ints:
    """A state's words, none for no state; raises `InvalidState`, also for a sealed one unless `sealed` ones may be."""
    if state is None:
        return _NO_STATE
    if len(state) >= 8 * HEADER and len(state) % 8 == 0:
        words = np.frombuffer(state, np.int64)
        if words[0] == shape.magic and len(words) == HEADER + shape.width * words[1]:
            return words
        if words[0] == shape.sealed_magic and len(words) == _sealed_size(shape, words):
            if sealed:
                return words
            raise InvalidState(
                f"A state of the view keyed by '{spec.join_key}' is sealed, and its ledger is missing. Update it with "
                "the ledger that lies beside it, or rebuild it from history."
            )
    raise InvalidState(
        f"State of {len(state)} bytes is not of the view keyed by '{spec.join_key}': format {FORMAT} with the columns "
        f"{', '.join((spec.event_id, *spec.values, *spec.distinct))}, {spec.retention} µs back, is needed. "
        "Rebuild it from history."
    )


def _sealed_size(shape: Layout, words: Ints) -> int:
    tiles = HEADER + shape.sealed_width * int(words[1])
    if not 0 <= tiles < len(words) - 1:
        return -1
    return tiles + 2 + (3 + PARTS * shape.n_values + shape.n_distinct) * int(words[tiles + 1])
