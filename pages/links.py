"""A hook of mkdocs: links from a page to the repository's own files, which the site does not hold.

They lead to DOCS_REPOSITORY where that is set (`https://forge.example/team/tollgate/blob/main`), and are plain text
elsewhere. A link to a file that is not there fails the build. One that is worded as a file, `[serving.md](serving.md)`,
bears the page's title instead. Runs in mkdocs's environment: imports nothing of ours.
"""

import os
import posixpath
import re
from pathlib import Path
from typing import Any

TITLE = re.compile(r"^# +(.+?)(?:[:,].*)?$", re.MULTILINE)
LINK = re.compile(r"(?<!!)\[([^\]]*)\]\((?!https?:|#|mailto:)([^)#\s]+)(#[^)\s]*)?\)")


def on_page_markdown(markdown: str, *, page: Any, config: Any, **_: Any) -> str:
    """The page with each link that leaves the docs folder made an outside one, or text."""
    docs = Path(config["docs_dir"])

    def outside(found: re.Match[str]) -> str:
        text, path, anchor = found.group(1), found.group(2), found.group(3) or ""
        target = posixpath.normpath(posixpath.join("docs", posixpath.dirname(page.file.src_uri), path))
        if target.startswith("docs/"):
            titled = _title(docs.parent / target) if text.endswith(".md") else text
            return f"[{titled or text}]({path}{anchor})"
        if not (docs.parent / target).exists():
            raise FileNotFoundError(f"Page {page.file.src_uri!r}: links to {path!r}; no such file in the repository.")
        base = os.environ.get("DOCS_REPOSITORY", "").rstrip("/")
        return f"[{text}]({base}/{target}{anchor})" if base else text

    return LINK.sub(outside, markdown)


def _title(page: Path) -> str:
    """The page's heading, up to its first colon or comma; nothing where there is no page, which mkdocs will say."""
    found = TITLE.search(page.read_text(encoding="utf-8")) if page.is_file() else None
    return found.group(1) if found else ""
