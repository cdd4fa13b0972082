"""What runs on this machine for somebody."""

from __future__ import annotations

import psutil


def naming(text: str, *but: int) -> list[str]:
    """The commands of the processes that name `text` in their command line or environment, but for these processes."""
    found = []
    for each in psutil.process_iter():
        try:
            said = (*each.cmdline(), *each.environ().values())
            ours = any(text in value for value in said) and each.status() != psutil.STATUS_ZOMBIE
            if ours and each.pid not in but:
                found.append(" ".join(each.cmdline()))
        except psutil.Error:
            continue
    return found
