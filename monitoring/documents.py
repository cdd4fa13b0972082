"""The project's documents as pages, so that an alert's link to the runbook leads somewhere wherever the monitor runs.

Invariant: only the Markdown files of `docs/` are shown, and each heading has the anchor that GitHub gives it.
"""

from __future__ import annotations

import re
from html import escape

from markdown_it import MarkdownIt

from feature_repo.settings import ROOT

FOLDER = ROOT / "docs"
_NAME = re.compile(r"[a-z0-9-]+\.md")
_STYLE = """
:root { color-scheme: light dark; --line: #8884; } body { max-width: 860px; margin: 0 auto; padding: 24px 16px 80px;
font: 16px/1.55 system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif; } a { color: #2f7bd9; }
code, pre { font: 13px ui-monospace, "DejaVu Sans Mono", monospace; background: #8882; border-radius: 4px; }
code { padding: 1px 4px; overflow-wrap: anywhere; } pre { padding: 12px; overflow-x: auto; } pre code { background: none; padding: 0; }
table { border-collapse: collapse; display: block; overflow-x: auto; } td, th { border: 1px solid var(--line);
padding: 5px 9px; text-align: left; vertical-align: top; } h3 { margin-top: 2em; } img { max-width: 100%; }
:target { background: #ffd54a44; border-radius: 4px; box-shadow: 0 0 0 6px #ffd54a44; }
"""  # noqa: E501 - CSS


def page(name: str) -> str | None:
    """A document as HTML by its file's name; None where there is none of that name."""
    file = FOLDER / name
    if not _NAME.fullmatch(name) or not file.is_file():
        return None
    parser = MarkdownIt("commonmark", {"html": False}).enable("table")
    tokens = parser.parse(file.read_text())
    for place, token in enumerate(tokens):
        if token.type == "heading_open":
            token.attrSet("id", anchor(tokens[place + 1].content))
    body = parser.renderer.render(tokens, parser.options, {})
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1"><style>{_STYLE}'
    return f"<!doctype html>{head}</style><title>{escape(name)}</title>\n{body}"


def anchor(heading: str) -> str:
    """The anchor that GitHub gives a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
