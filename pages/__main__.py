"""Write the pages that are made of the code into `docs/reference`: `python -m pages`.

The OpenAPI document is the one that the service gives at `/docs.json`, had from its class; nothing is started.
"""

from __future__ import annotations

from typing import Any, cast

from bentos.openapi import amended
from bentos.service import DESCRIPTION, TollgateService
from feature_repo.settings import ROOT
from pages import api_reference, settings_reference

FOLDER = ROOT / "docs" / "reference"


def main() -> None:
    """Write them; what was there is replaced."""
    FOLDER.mkdir(exist_ok=True)
    document = amended(cast(Any, TollgateService).openapi_spec.asdict(), DESCRIPTION)
    (FOLDER / "api.md").write_text(api_reference.page(document), encoding="utf-8")
    (FOLDER / "settings.md").write_text(settings_reference.page(), encoding="utf-8")


if __name__ == "__main__":
    main()
