"""Write the dashboards' JSON: `python -m monitoring.dashboards`."""

from __future__ import annotations

import json

from feature_repo.settings import ROOT
from monitoring.dashboards.drift import DRIFT
from monitoring.dashboards.models import MODELS
from monitoring.dashboards.overview import OVERVIEW
from monitoring.dashboards.serving import SERVING
from monitoring.dashboards.stream import STREAM

FOLDER = ROOT / "monitoring" / "grafana" / "dashboards"
DASHBOARDS = (OVERVIEW, SERVING, STREAM, MODELS, DRIFT)


def texts() -> dict[str, str]:
    """The JSON of each dashboard by its file's name."""
    return {f"{one.uid}.json": json.dumps(one.json(), indent=1) + "\n" for one in DASHBOARDS}


def main() -> None:
    """Replace the files."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, text in texts().items():
        (FOLDER / name).write_text(text)
        print(FOLDER.relative_to(ROOT) / name)


if __name__ == "__main__":
    main()
