"""The brute force: every windowed feature recomputed over the raw events in SQL, straight from DESIGN.md's contract.

Shares nothing with the code under test but the list of features to compute: boundaries, tiles, ties, lateness and
duplicates are written here a second time, on purpose.
"""

from __future__ import annotations

from typing import Any

import duckdb
import pandas as pd

H = 3_600_000_000
FAR_EDGE_STEP = {
    25 * H: H // 4,
    36 * H: H // 2,
    3 * 24 * H: H,
    7 * 24 * H: 2 * H,
    14 * 24 * H: 4 * H,
    21 * 24 * H: 4 * H,
    30 * 24 * H: 12 * H,
    90 * 24 * H: 24 * H,
}

SQL = {
    "count": "count({x}) FILTER ({w})",
    "sum": "coalesce(sum({x}) FILTER ({w}), 0.0)",
    "mean": "avg({x}) FILTER ({w})",
    "std": "stddev_samp({x}) FILTER ({w})",
    "min": "min({x}) FILTER ({w})",
    "max": "max({x}) FILTER ({w})",
    "nunique": "count(DISTINCT {x}) FILTER ({w})",
}


def brute_force(spec: Any, events: pd.DataFrame, questions: pd.DataFrame) -> pd.DataFrame:
    """Features of each question, in order.

    `events` has the spec's columns, `ts` and `created` (µs); `questions` has the join key, `at` and `known` (µs).
    """
    picks = []
    for feature, name in zip(spec.features, spec.names, strict=True):
        if feature.function == "seconds_since_last":
            picks.append(f'(any_value(q.at) - max(e.ts)) / 1e6 AS "{name}"')
            continue
        low = f"q.at - {feature.window}"
        if feature.window > 24 * H:
            step = FAR_EDGE_STEP[feature.window]
            low = f"(({low}) // {step}) * {step}"
        x = f'e."{feature.column}"' if feature.column else "e.ts"
        picks.append(SQL[feature.function].format(x=x, w=f"WHERE e.ts >= {low}") + f' AS "{name}"')
    query = f"""
        WITH once AS (
            SELECT * FROM events
            QUALIFY row_number() OVER (PARTITION BY "{spec.join_key}", "{spec.event_id}" ORDER BY created) = 1
        )
        SELECT {", ".join(picks)}
        FROM questions q LEFT JOIN once e
          ON e."{spec.join_key}" = q."{spec.join_key}" AND e.ts < q.at AND e.created <= q.known
        GROUP BY q.n ORDER BY q.n
    """
    with duckdb.connect() as connection:
        connection.register("events", events)
        connection.register("questions", questions.assign(n=range(len(questions))))
        return connection.execute(query).df().astype("float64")


def differences(spec: Any, expected: pd.DataFrame, got: pd.DataFrame) -> list[str]:
    """Where two tables of features disagree: counts must be equal, the rest to 1e-9 relative, null where null."""
    found = []
    for feature, name in zip(spec.features, spec.names, strict=True):
        exact = feature.function in ("count", "nunique", "min", "max", "seconds_since_last")
        for row, (a, b) in enumerate(zip(expected[name], got[name], strict=True)):
            if pd.isna(a) and pd.isna(b):
                continue
            # A deviation near 0 of large amounts is only as good as the amounts: 1e-9 of the mean.
            scale = abs(a)
            if feature.function == "std":
                scale = max(scale, 1e-3 * abs(expected[name.replace("_std_", "_mean_")][row]))
            if pd.isna(a) or pd.isna(b) or (a != b if exact else abs(a - b) > 1e-9 * scale):
                found.append(f"{name}[{row}]: brute force {a!r}, got {b!r}")
    return found
