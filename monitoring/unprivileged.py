"""Runs a program as `nobody` where root started it: `unprivileged.py COMMAND...`. Postgres refuses to run as root.

It runs as a file, by path, and imports nothing of the project.
"""

from __future__ import annotations

import os
import pwd
import sys


def drop() -> None:
    """Become `nobody` for good; nothing where the process isn't root's."""
    if os.geteuid() == 0:
        nobody = pwd.getpwnam("nobody")
        os.setgroups([])
        os.setgid(nobody.pw_gid)
        os.setuid(nobody.pw_uid)


if __name__ == "__main__":
    drop()
    os.execv(sys.argv[1], sys.argv[1:])  # noqa: S606 - the command is the platform's own
