"""`feast materialize` for windowed views: the states that the stream job would hold, computed from history.

Views without windows go through Feast's own local engine. Plugged in by `batch_engine.type` in `feature_store.yaml`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from feast.infra.common.materialization_job import MaterializationJobStatus
from feast.infra.compute_engines.local.compute import LocalComputeEngine
from feast.infra.compute_engines.local.job import LocalMaterializationJob
from feast.repo_config import FeastConfigBaseModel
from feast.utils import make_tzaware

from feature_repo.offline_store import _root
from feature_repo.online import key_field, online_rows
from feature_repo.online_states import OnlineStates
from feature_repo.past_events import read_events
from feature_repo.window_history import History
from feature_repo.window_state import to_us
from feature_repo.windows import UnsupportedAggregation, WindowSpec, is_windowed, spec_of_view

WRITE_ROWS = 1_000
"""States written to the online store in one pipeline."""


class WindowComputeEngineConfig(FeastConfigBaseModel):
    """`batch_engine:` of `feature_store.yaml`."""

    type: Literal["feature_repo.compute_engine.WindowComputeEngine"] = "feature_repo.compute_engine.WindowComputeEngine"


class WindowComputeEngine(LocalComputeEngine):
    """See the module."""

    def __init__(self, type: str = "", **kwargs: Any) -> None:
        super().__init__(backend="pandas", **kwargs)

    def update(
        self,
        project: str,
        views_to_delete: Sequence[Any],
        views_to_keep: Sequence[Any],
        entities_to_delete: Sequence[Any],
        entities_to_keep: Sequence[Any],
    ) -> None:
        """Feast's hook for `feast apply`; raises `UnsupportedAggregation` with every view that cannot be executed.

        Feast commits only afterwards, so a file registry stays as it was. To a SQL registry it has written by then; the
        stream job refuses those views with the same message.
        """
        problems = []
        for view in filter(is_windowed, views_to_keep):
            try:
                key_field(view)
                spec_of_view(view)
            except UnsupportedAggregation as error:
                problems.append(str(error))
        if problems:
            raise UnsupportedAggregation("\n".join(problems))

    def _materialize_one(self, registry: Any, task: Any, **kwargs: Any) -> LocalMaterializationJob:
        view = task.feature_view
        if not is_windowed(view):
            return super()._materialize_one(registry, task, **kwargs)
        job = f"{view.name}-{task.start_time}-{task.end_time}"
        try:
            self._materialize_windows(view, task)
        except Exception as error:  # Feast's engines hand their failure over in the job; the provider raises it
            return LocalMaterializationJob(job_id=job, status=MaterializationJobStatus.ERROR, error=error)
        return LocalMaterializationJob(job_id=job, status=MaterializationJobStatus.SUCCEEDED)

    def _materialize_windows(self, view: Any, task: Any) -> None:
        """Write the state as of the task's end of every entity with an event in the task's time range.

        An event belongs to the range by its time or, if that is later, by when it was created. The state itself reaches
        back as far as its windows do. One that the stream has carried further than history is newer by its stamp, and
        the newer is kept, as Feast does.
        """
        spec = spec_of_view(view)
        source = view.batch_source
        since, until = to_us(make_tzaware(task.start_time)), to_us(make_tzaware(task.end_time)) + 1  # Feast: inclusive
        events = read_events(source, _root(self.repo_config), spec, until - spec.retention, until)
        history = History.of(spec, events, source.timestamp_field, source.created_timestamp_column or None)
        bulk = self._bulk_writer(view, spec)
        # None is sealed: the ledger of a stream job that runs meanwhile must stay as it is.
        parts = history.rebuilt(until, known=until - 1, changed_since=since, sealing=False)
        with task.tqdm_builder(len(history.entities)) as bar:
            for part in parts:
                for begin in range(0, len(part.entities), WRITE_ROWS):
                    few = slice(begin, begin + WRITE_ROWS)
                    states = [state for state in part.states[few] if isinstance(state, bytes)]
                    if bulk is not None:
                        bulk.write_newer(part.entities[few], states, part.stamps[few])
                    else:
                        rows = list(online_rows(view, spec, zip(part.entities[few], states, strict=True)))
                        self.online_store.online_write_batch(self.repo_config, view, rows, None)
                bar.update(len(part.entities))

    def _bulk_writer(self, view: Any, spec: WindowSpec) -> OnlineStates | None:
        """The writer of states in bulk, where the online store is a plain Redis; else null."""
        config = self.repo_config.online_store
        versioned = self.repo_config.registry.enable_online_feature_view_versioning
        if versioned or getattr(config, "redis_type", None) not in ("redis", "redis_sentinel"):
            return None
        if config.key_ttl_seconds or config.skip_dedup:
            return None
        return OnlineStates(self.online_store._get_client(config), self.repo_config, view, spec)
