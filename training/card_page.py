"""A card as a document: sections of paragraphs and tables, written as Markdown and as one HTML page."""

from __future__ import annotations

import base64
import html
from collections.abc import Mapping
from dataclasses import dataclass, field

import pandas as pd

from training.comparison import pipes

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; color: #222; }
h1 { font-size: 1.6rem; margin-bottom: .2rem; } h2 { font-size: 1.15rem; margin-top: 2rem; }
table { border-collapse: collapse; margin: .7rem 0; font-size: 13.5px; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .8rem .25rem 0; text-align: right; border-bottom: 1px solid #eee; } th { color: #555; }
th:first-child, td:first-child { text-align: left; } img { width: 49%; }
"""


@dataclass(frozen=True)
class Section:
    """A heading, its paragraphs, and a table of text under them."""

    title: str
    paragraphs: tuple[str, ...] = ()
    table: pd.DataFrame | None = None


@dataclass(frozen=True)
class Card:
    """The sections in order; `pictures` are PNG, in the HTML alone."""

    title: str
    summary: str
    sections: tuple[Section, ...]
    pictures: Mapping[str, bytes] = field(default_factory=dict)

    def markdown(self) -> str:
        """The card as Markdown."""
        parts = [f"# {self.title}", self.summary]
        for section in self.sections:
            parts += [f"## {section.title}", *section.paragraphs]
            if section.table is not None:
                parts.append(pipes(section.table))
        return "\n\n".join(parts) + "\n"

    def html(self) -> str:
        """The card as one page that needs no other file."""
        parts = [f"<h1>{html.escape(self.title)}</h1>", f"<p>{html.escape(self.summary)}</p>"]
        for section in self.sections:
            parts.append(f"<h2>{html.escape(section.title)}</h2>")
            parts += [f"<p>{html.escape(text)}</p>" for text in section.paragraphs]
            if section.table is not None:
                parts.append(section.table.to_html(border=0, justify="right"))
        for name, png in self.pictures.items():
            data = base64.b64encode(png).decode()
            parts.append(f'<img alt="{html.escape(name)}" src="data:image/png;base64,{data}">')
        head = f'<meta charset="utf-8"><title>{html.escape(self.title)}</title><style>{STYLE}</style>'
        return f'<!doctype html><html lang="en"><head>{head}</head><body>{"".join(parts)}</body></html>\n'
