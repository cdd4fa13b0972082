"""Evidently's part of a drift report: the run, its HTML, and the workspace that Evidently's own UI opens.

Invariant: what Evidently shows as a column's drift is our distance, against our threshold: one number everywhere. It is
imported when it is called (seconds, 350 MB): in a process of its own.
"""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import pandas as pd

from monitoring.comparison import Comparison
from monitoring.drift_distance import Scale

METHOD = "normal_scores"
"""The name under which Evidently knows Wasserstein's distance on normal scores."""

PROJECT = "tollgate"

KEPT = 30
"""Runs of a project that stay in the workspace; older ones are removed."""


@contextmanager
def _quiet() -> Iterator[None]:
    # Evidently reports its use home unless this is set before it is imported.
    os.environ.setdefault("DO_NOT_TRACK", "1")
    with warnings.catch_warnings():
        # Its dependencies warn of their own futures (pydantic v1 shims, litestar, NLTK); its numbers are tested here.
        warnings.simplefilter("ignore")
        yield


def run(
    prepared: Comparison, drift_share: float, html: Path, tags: tuple[str, ...] = (), at: datetime | None = None
) -> Any:
    """Evidently's snapshot of a comparison, saved as HTML; `at` is the instant that its UI shows."""
    with _quiet():
        from evidently import DataDefinition, Dataset, Report
        from evidently.presets import DataDriftPreset

        _register()
        definition = DataDefinition(
            numerical_columns=list(prepared.numerical), categorical_columns=list(prepared.categorical)
        )
        preset = DataDriftPreset(
            columns=list(prepared.thresholds),
            drift_share=drift_share,
            num_method=METHOD,
            cat_method="jensenshannon",
            per_column_threshold=prepared.thresholds,
        )
        now, before = _frame(prepared.current), _frame(prepared.reference)
        report = Report([preset], include_tests=True, tags=list(tags))
        sides = Dataset.from_pandas(now, definition), Dataset.from_pandas(before, definition)
        snapshot = report.run(*sides, timestamp=at) if at is not None else report.run(*sides)
        snapshot.save_html(str(html))
        return snapshot


def results(snapshot: Any) -> dict[str, Any]:
    """What a snapshot found, as JSON without NaN."""
    found: dict[str, Any] = json.loads(snapshot.json(), parse_constant=lambda _: None)
    return found


def keep(snapshot: Any, folder: Path, name: str) -> str:
    """Add a snapshot to the workspace in `folder`, which `evidently ui --workspace` shows; returns its identifier.

    Reports of one name make a project, of which the last `KEPT` stay.
    """
    with _quiet():
        from evidently.ui.workspace import Workspace

        workspace, title = Workspace(str(folder)), f"{PROJECT} against {name}"
        found = workspace.search_project(title)
        project = found[0] if found else workspace.create_project(title, "Drift of the payments decided.")
        identifier = workspace.add_run(project.id, snapshot, name=name).id
        for old in sorted(workspace.list_runs(project.id))[:-KEPT]:  # identifiers begin with their time
            workspace.delete_run(project.id, old)
        return str(identifier)


def _frame(columns: dict[str, pd.Series]) -> pd.DataFrame:
    """Columns side by side; one that has fewer rows ends with nulls, which are no part of its sample."""
    return pd.DataFrame({name: column.reset_index(drop=True) for name, column in columns.items()})


def _register() -> None:
    from evidently.legacy.calculations.stattests import registry
    from evidently.legacy.core import ColumnType

    def normal_scores(
        reference_data: pd.Series, current_data: pd.Series, feature_type: Any, threshold: float
    ) -> tuple[float, bool]:
        found = Scale.of(reference_data.to_numpy()).distance(current_data.to_numpy())
        return found, found >= threshold

    if METHOD not in registry._registered_stat_tests:
        title = "Wasserstein distance of normal scores"
        registry.register_stattest(registry.StatTest(METHOD, title, [ColumnType.Numerical]), normal_scores)
