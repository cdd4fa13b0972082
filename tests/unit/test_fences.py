"""Fenced blocks of a page, and the commands in them: prompts, comments, continued lines, here-documents."""

from __future__ import annotations

from pages.fences import commands, fences

PAGE = """# Title

## First

```console title="needs Docker"
# a comment
docker build . \\
  --tag x    # why
cat > file <<'END'
make nothing
END
make up
```

## Second

```bash
$ curl -s x -d '{
    "a": 1}'
{"answer": 1}
$ make down
```

```python
make = 1
```
"""


def test_a_fence_has_its_language_mark_line_and_heading():
    found = [(each.language, each.mark, each.line, each.heading, each.is_shell) for each in fences(PAGE)]
    assert found == [
        ("console", "needs Docker", 5, "First", True),
        ("bash", "", 17, "Second", True),
        ("python", "", 24, "Second", False),
    ]


def test_commands_come_without_comments_answers_and_what_is_written_to_a_file():
    first, second, _ = fences(PAGE)
    assert list(commands(first)) == ["docker build . --tag x", "cat > file <<'END'", "make up"]
    assert list(commands(second)) == ["curl -s x -d '{", "make down"]
