"""Whether `python -m` commands parse, by their own parsers: a list of argument lists as JSON in, of complaints out.

Each module is run as `python -m` would run it, up to the moment in which it has read its arguments; nothing else of it
happens. One process for all, since what costs time is importing Feast and MLflow.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import runpy
import sys
from collections.abc import Sequence
from typing import Any, NoReturn


class Parsed(BaseException):
    """The arguments were taken."""


_parse = argparse.ArgumentParser.parse_args


def _stop(parser: argparse.ArgumentParser, args: Sequence[str] | None = None, namespace: Any = None) -> NoReturn:
    _parse(parser, args, namespace)
    raise Parsed


def complaint(module: str, arguments: list[str]) -> str:
    """What the command's parser says against these arguments; nothing where it takes them."""
    said = io.StringIO()
    sys.argv = [module, *arguments]
    try:
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
            runpy.run_module(module, run_name="__main__", alter_sys=False)
    except Parsed:
        return ""
    except SystemExit as left:
        return said.getvalue() if left.code else ""  # `--help` leaves with 0
    return "ended without reading its arguments"


def main() -> None:
    """Read, try, tell."""
    argparse.ArgumentParser.parse_args = _stop  # type: ignore[method-assign, assignment]
    asked = json.load(sys.stdin)
    print(json.dumps([complaint(module, arguments) for module, *arguments in asked]))


if __name__ == "__main__":
    main()
