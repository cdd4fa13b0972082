"""From raw history to a registered champion: data, training sets, models, evaluation."""

import feature_repo  # noqa: F401 - first, so that Feast is imported in 1.4 s instead of 7
