"""The BentoML service: HTTP in, a decision on record out."""

import feature_repo  # noqa: F401 - first, so that Feast is imported in 1.4 s instead of 7
