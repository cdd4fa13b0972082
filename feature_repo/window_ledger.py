"""Which codes of a distinct column were sealed, and when last: what a writer needs to seal on, and no reader does.

It is as large as the codes are many, so it lies beside the state and is written only when something is sealed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from feature_repo.window_kernels import NEVER

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Ledger:
    """Of each distinct column the sealed codes, ascending, and the instant of each one's last sealed event.

    As bytes: the magic and the seal of its state, the number of codes of each column, then each column's codes and
    instants.
    """

    magic: int
    seal: int
    codes: tuple[Ints, ...]
    lasts: tuple[Ints, ...]

    @classmethod
    def empty(cls, magic: int, columns: int) -> Ledger:
        """The ledger of a state that has sealed nothing yet."""
        nothing = (np.empty(0, np.int64),) * columns
        return cls(magic, NEVER, nothing, nothing)

    @classmethod
    def loads(cls, data: bytes, columns: int) -> Ledger | None:
        """The inverse of `dumps`; null for bytes that no ledger of so many columns has."""
        if len(data) % 8 or len(data) < 8 * (2 + columns):
            return None
        words = np.frombuffer(data, np.int64)
        sizes = words[2 : 2 + columns]
        if len(words) != 2 + columns + 2 * sizes.sum() or (sizes < 0).any():
            return None
        parts = np.split(words[2 + columns :], np.cumsum(np.repeat(sizes, 2))[:-1]) if columns else []
        return cls(int(words[0]), int(words[1]), tuple(parts[::2]), tuple(parts[1::2]))

    def dumps(self) -> bytes:
        """The ledger as bytes."""
        head = np.array([self.magic, self.seal, *map(len, self.codes)], np.int64)
        columns = [part for pair in zip(self.codes, self.lasts, strict=True) for part in pair]
        return np.concatenate((head, *columns)).tobytes()

    def before(self, distinct: Ints) -> Ints:
        """When each code of `distinct` (columns, events) was last sealed, NEVER where it was not; the same shape."""
        found = np.full(distinct.shape, NEVER, np.int64)
        for m, (codes, lasts) in enumerate(zip(self.codes, self.lasts, strict=True)):
            if len(codes):
                places = np.minimum(np.searchsorted(codes, distinct[m]), len(codes) - 1)
                found[m] = np.where(codes[places] == distinct[m], lasts[places], NEVER)
        return found

    def after(self, seal: int, ts: Ints, distinct: Ints, since: int) -> Ledger:
        """The ledger with more events, ordered by time and later than all before; what is older than `since` goes."""
        codes, lasts = [], []
        for m in range(len(self.codes)):
            there = distinct[m] != 0
            code = np.concatenate((self.codes[m], distinct[m][there]))
            last = np.concatenate((self.lasts[m], ts[there]))
            order = np.argsort(code, kind="stable")
            code, last = code[order], last[order]
            # Of equal codes the later one comes last.
            stays = np.append(code[1:] != code[:-1], True)[: len(code)] & (last >= since)
            codes.append(code[stays])
            lasts.append(last[stays])
        return Ledger(self.magic, seal, tuple(codes), tuple(lasts))
