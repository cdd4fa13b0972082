"""How many random histories each parity test tries: 200, or with `HYPOTHESIS_PROFILE=nightly` 10,000.

`make parity-nightly` runs them (`PARITY_EXAMPLES=2000` for another number). Those that go through Redis and Parquet try
15 in a hundred of it, for they take 100 times as long.
"""

import os

from hypothesis import HealthCheck, settings

_slow = [HealthCheck.too_slow, HealthCheck.data_too_large]
settings.register_profile("default", max_examples=200, deadline=None, suppress_health_check=_slow)
_many = int(os.environ.get("PARITY_EXAMPLES", "10000"))
settings.register_profile("nightly", max_examples=_many, deadline=None, suppress_health_check=_slow)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))
