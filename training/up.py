"""The platform made ready and left running, for play: `make up`, and `make down` to end it.

The first time it loads data and trains, as the demo does; afterwards it starts what is there.
"""

from __future__ import annotations

import argparse
import json
from typing import Any

from rich.console import Console

from feature_repo.schema import FIELDS
from feature_repo.settings import Settings, settings
from monitoring.kafka_group import require_broker
from monitoring.processes import down, up
from training.first import told
from training.prepare import EXPECTED, Steps, prepare
from training.summary import curl


def _sample(current: Settings, dataset: str | None, steps: Steps) -> dict[str, Any]:
    """A payment to ask about, of a platform that is ready; the first time, make it ready."""
    ready = current.home / "ready.json"
    if ready.exists():
        up(current, ("redis", "mlflow"))
        sample: dict[str, Any] = json.loads(ready.read_text())
        return sample
    prepared = prepare(current, lambda: up(current, ("redis", "mlflow")), dataset, steps)
    made = f"{prepared.outcome.champion}, version {prepared.outcome.version}, {told(prepared.promoted)}"
    steps.console.print(f"  {made}", markup=False)
    first = prepared.held_out.iloc[0]
    sample = {name: first[name] for name in FIELDS if first[name] is not None and first[name] == first[name]}
    sample["timestamp"] = first["timestamp"].isoformat()
    ready.write_text(json.dumps(sample))
    return sample


def main() -> None:
    """Start everything; print where it is."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dataset", help="handbook, sparkov, synthetic or a file; default: what FRAUD_DATA holds")
    arguments = parser.parse_args()
    console = Console(highlight=False)
    # The data is years old; a service that met live payments would refuse such as stale.
    current = settings().model_copy(update={"max_age": None})
    try:
        require_broker(current)
        sample = _sample(current, arguments.dataset, Steps(console))
        up(current, ("stream", "service", "monitor"))
    except EXPECTED as error:
        raise SystemExit(f"{error}") from None
    except BaseException:
        down(current)
        raise
    address = f"http://{current.host}:{current.port}"
    console.print("\n[bold]Tollgate is up.[/] `make down` ends it.\n")
    console.print(f"  service   {address}   (API: {address}/, model: {address}/model, metrics: {address}/metrics)")
    console.print(f"  monitor   http://{current.metrics_host}:{current.monitor_port}")
    console.print(f"  MLflow    {current.mlflow_url}")
    console.print(f"  Redis     {current.redis_url}")
    if current.transport == "kafka":
        console.print(f"  Kafka     {current.kafka_bootstrap}   topic {current.transactions_stream}")
    console.print("  Feast UI  cd feature_repo && ../.venv/bin/feast ui\n")
    console.print("Ask about a payment:\n")
    console.print("  " + curl(address, sample), soft_wrap=True)


if __name__ == "__main__":
    main()
