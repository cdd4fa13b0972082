"""A decision made again from the log: the logged vector, the model version that decided. `python -m bentos.replay ID`

The score must come out the same to the last bit; anything else says that the record, the model or the runtime is not
what it was.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import get_args

import numpy as np
import redis

from bentos.answers import Role
from bentos.model import LoadedModel, ModelFiles, load, read_contract
from bentos.registry import NoModel, Registry, RegistryUnreachable
from feature_repo.settings import Settings, settings
from monitoring.decision_finder import find_decisions, has_table
from monitoring.decision_log import LoggedDecision


class NotReplayable(LookupError):
    """There is no such decision, or not what it takes to make it again."""


@dataclass(frozen=True)
class Replayed:
    """A decision and the score that its vector has now."""

    decision: LoggedDecision
    probability: float

    @property
    def same(self) -> bool:
        """Whether it is the logged score, bit for bit."""
        return np.float64(self.probability).tobytes() == np.float64(self.decision.probability).tobytes()

    def __str__(self) -> str:
        logged = self.decision
        said = f"Decision '{logged.transaction_id}' ({logged.decision}, {logged.decided_at:%FT%T.%f}Z) by"
        model = f"{logged.model_name} version {logged.model_version} ({logged.model_role}, {logged.feature_service})"
        if self.same:
            return f"{said} {model}: score {logged.probability!r} reproduced bit for bit."
        return f"{said} {model}: logged score {logged.probability!r}, now {self.probability!r}. NOT THE SAME."


def find(current: Settings, identifiers: Sequence[str]) -> list[LoggedDecision]:
    """The decisions on these payments, in this order; raises `NotReplayable` for one that is not on record."""
    with redis.Redis.from_url(current.redis_url) as client:
        found = find_decisions(client, current, identifiers)
    for identifier in identifiers:
        if identifier not in found:
            looked = "Redis and the table `decisions`" if has_table(current) else "Redis (no FRAUD_POSTGRES_URL is set)"
            raise NotReplayable(f"Decision '{identifier}': must be on record; looked in {looked}.")
    return [found[identifier] for identifier in identifiers]


def replay(current: Settings, decisions: Sequence[LoggedDecision]) -> list[Replayed]:
    """Score each decision's vector with the version that decided. Raises `NotReplayable`, or as `bentos.model.load`."""
    models: dict[tuple[str, str], LoadedModel] = {}
    done = []
    for decision in decisions:
        version = decision.model_name, decision.model_version
        if version not in models:
            models[version] = _load(current, decision)
        columns = len(models[version].contract.columns)
        if decision.vector.shape != (columns,):
            raise NotReplayable(
                f"Decision '{decision.transaction_id}': its vector has {len(decision.vector)} columns; "
                f"{version[0]} version {version[1]} takes {columns}."
            )
        [probability] = models[version].score(decision.vector[np.newaxis]).tolist()
        done.append(Replayed(decision, probability))
    return done


def _load(current: Settings, decision: LoggedDecision) -> LoadedModel:
    """The version as it was registered, by its own contract: today's code may want other columns."""
    files = _files(current, decision)
    contract = read_contract(files)
    [role] = [role for role in get_args(Role) if role == decision.model_role] or ["champion"]
    return load(
        files,
        role=role,
        feature_service=contract.feature_service,
        columns=contract.columns,
        review_threshold=None,
        now=datetime.now(UTC),
    )


def _files(current: Settings, decision: LoggedDecision) -> ModelFiles:
    """From MLflow, or from the service's cache where MLflow is away."""
    name, version, cache = decision.model_name, decision.model_version, current.home / "models"
    registry = Registry(current.mlflow_url, name, cache)
    try:
        return registry.version(version)
    except NoModel as error:
        raise NotReplayable(f"Decision '{decision.transaction_id}': {error}") from error
    except RegistryUnreachable as error:
        folder = cache / name / version
        if not folder.exists():
            raise NotReplayable(f"Decision '{decision.transaction_id}': {error} {folder} does not exist.") from error
        return ModelFiles(name, version, folder, "cache")
    finally:
        registry.close()


def main() -> int:
    """The command line; exit code 0 where every score is reproduced, 1 where one is not or cannot be."""
    parser = argparse.ArgumentParser(prog="python -m bentos.replay", description=__doc__)
    parser.add_argument("transaction_id", nargs="+", help="payments whose decisions to make again")
    given = parser.parse_args()
    current = settings()
    try:
        done = replay(current, find(current, given.transaction_id))
    except NotReplayable as error:
        print(error, file=sys.stderr)
        return 1
    for one in done:
        print(one, file=sys.stdout if one.same else sys.stderr)
    return 0 if all(one.same for one in done) else 1


if __name__ == "__main__":
    sys.exit(main())
