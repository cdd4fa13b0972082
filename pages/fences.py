"""The fenced blocks of a Markdown page, and the shell commands in them. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

SHELLS = ("bash", "console", "sh", "shell")

_FENCE = re.compile(r"^```(?P<info>[^\n`]*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
_HEADING = re.compile(r"^#{1,6} +(.+)$", re.MULTILINE)
_MARK = re.compile(r'title="([^"]*)"')


@dataclass(frozen=True)
class Fence:
    """A fenced block: language, mark (the title a reader sees above it), text, line, and the heading it is under."""

    language: str
    mark: str
    text: str
    line: int
    heading: str

    @property
    def is_shell(self) -> bool:
        """Whether it holds commands."""
        return self.language in SHELLS


def fences(page: str) -> Iterator[Fence]:
    """Every fenced block, from the top."""
    blank = _FENCE.sub(lambda found: re.sub(r"[^\n]", " ", found.group()), page)  # a `# comment` is no heading
    headings = [(found.start(), found.group(1)) for found in _HEADING.finditer(blank)]
    for found in _FENCE.finditer(page):
        info = found["info"].strip()
        mark = _MARK.search(info)
        above = [title for at, title in headings if at < found.start()]
        yield Fence(
            info.split(" ")[0], mark[1] if mark else "", found["text"], page.count("\n", 0, found.start()) + 1,
            above[-1] if above else "",
        )  # fmt: skip


def commands(fence: Fence) -> Iterator[str]:
    """The commands of a fence without comments, and without what they printed where prompts (`$ `) set that apart."""
    prompted = any(line.startswith("$ ") for line in fence.text.splitlines())
    pending, end = "", ""
    for line in fence.text.splitlines():
        if end:  # a here-document goes on until its word stands alone
            end = "" if line.strip() == end else end
            continue
        if prompted and not pending:
            if not line.startswith("$ "):
                continue
            line = line[2:]
        pending = f"{pending}{line.strip()}" if not pending else f"{pending} {line.strip()}"
        if pending.endswith("\\"):
            pending = pending[:-1].rstrip()
            continue
        if here := re.search(r"<<-?\s*'?(\w+)'?", pending):
            end = here[1]
        command = re.sub(r"(^|\s+)#\s.*$", "", pending).strip()
        pending = ""
        if command:
            yield command
