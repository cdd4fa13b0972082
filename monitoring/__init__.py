"""What is measured and how trouble shows: metrics, drift, local processes."""

import feature_repo  # noqa: F401 - first, so that Feast is imported in 1.4 s instead of 7
