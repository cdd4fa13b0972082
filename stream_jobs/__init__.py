"""The Bytewax jobs that keep windowed features fresh, and the transports that feed them."""

import feature_repo  # noqa: F401 - first, so that Feast is imported in 1.4 s instead of 7
