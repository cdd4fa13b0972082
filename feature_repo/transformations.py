"""On-demand views made from a function of this package and literal arguments.

Feast stores a transformation as source text and runs it from there, so the text made here imports the function by name
and carries the arguments: nothing is copied, and a view read back from the registry runs the code that is installed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from feast import Field, OnDemandFeatureView, RequestSource, StreamFeatureView
from feast.types import Float64

from feature_repo.context import AT, as_given
from feature_repo.window_state import finish_columns
from feature_repo.windows import WindowSpec

VECTORISED_TAG = "vectorised"
"""Marks a transformation that takes Arrow and numpy columns as well as lists."""


def state_field(view: str) -> str:
    """The one feature of a windowed view: its entity's state."""
    return f"{view}_state"


def state_column(view: str) -> str:
    """The column in which Feast hands a windowed view's state to a transformation."""
    return f"{view}__{state_field(view)}"


class DeclaredView(OnDemandFeatureView):
    """An on-demand view whose schema is declared: `feast apply` has nothing to infer by running it on made-up input."""

    def infer_features(self) -> None:
        """Keep the declared schema."""


def on_demand(
    name: str, sources: Sequence[Any], features: Sequence[str], imports: str, expression: str, description: str
) -> OnDemandFeatureView:
    """An on-demand view over `sources` whose features, all float64, are what `expression` gives.

    The expression may use what the line `imports` imports and `inputs`, the mapping of columns that Feast hands over.
    """
    source = f"def {name}(inputs):\n    {imports}\n\n    return {expression}\n"
    namespace: dict[str, Any] = {"__name__": "__main__"}
    exec(source, namespace)  # noqa: S102 — text made above from this package's own names
    return DeclaredView(
        name=name,
        sources=list(sources),
        schema=[Field(name=feature, dtype=Float64) for feature in features],
        mode="python",
        udf=namespace[name],
        udf_string=source,
        description=description,
        tags={VECTORISED_TAG: "true"},
    )


def finished(
    name: str, view: StreamFeatureView, request: RequestSource, spec: WindowSpec, description: str
) -> OnDemandFeatureView:
    """The on-demand view that finishes the windows of `view` at the request's instant."""
    imports = f"from {finish_columns.__module__} import {finish_columns.__name__}"
    call = f"{finish_columns.__name__}({spec.dumps()!r}, inputs, {state_column(view.name)!r}, {AT!r})"
    return on_demand(name, [view, request], spec.names, imports, call, description)


def in_context(
    name: str, sources: Sequence[Any], function: Callable[..., Any], arguments: Sequence[str], description: str
) -> OnDemandFeatureView:
    """The on-demand view that runs a function of `feature_repo.context`; its features are the names that gives."""
    features = tuple(function(_OneUnknownRow(), *arguments))
    imports = f"from {function.__module__} import {as_given.__name__}, {function.__name__}"
    passed = ", ".join(["inputs", function.__name__, *(repr(argument) for argument in arguments)])
    return on_demand(name, sources, features, imports, f"{as_given.__name__}({passed})", description)


class _OneUnknownRow(dict[str, Any]):
    """One payment of which nothing is known but that it has an instant."""

    def __missing__(self, column: str) -> list[Any]:
        return [0 if column == AT else None]
