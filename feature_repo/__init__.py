"""What a transaction is, what each feature means, and where features live: the one definition every part imports.

Feast checks the types of its own arguments at run time and compiles half its modules anew for that, which makes
`import feast` take 7 seconds instead of 1.4. Importing this package first leaves those checks out; `feast apply`, whose
command line imports Feast before it, keeps them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import typeguard


def _unchecked(target: Callable[..., Any] | None = None, **_: Any) -> Callable[..., Any]:
    return target if target is not None else lambda later: later


typeguard.typechecked = _unchecked  # type: ignore[assignment]
