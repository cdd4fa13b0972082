"""The jobs of the offline store: a training set computed in chunks, and a plain table."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from feast.errors import SavedDatasetLocationAlreadyExists
from feast.infra.offline_stores.file_source import SavedDatasetFileStorage
from feast.infra.offline_stores.offline_store import RetrievalJob, RetrievalMetadata
from feast.infra.offline_stores.offline_utils import (
    DEFAULT_ENTITY_DF_EVENT_TIMESTAMP_COL,
    get_expected_join_keys,
)
from feast.on_demand_feature_view import OnDemandFeatureView
from feast.types import from_feast_to_pyarrow_type

from feature_repo import sources
from feature_repo.asof import StoredJoin, WindowedJoin, plan_joins, taken
from feature_repo.pipeline import ahead
from feature_repo.sources import Root
from feature_repo.spill import Columns
from feature_repo.transformations import VECTORISED_TAG
from feature_repo.window_history import History
from feature_repo.window_state import Ints, from_us

CHUNK = 65_536
"""Rows finished at a time; bounds the memory between the history and the result."""


class InvalidEntityRows(ValueError):
    """Entity rows that cannot be joined: an instant or a join key is missing."""


class _Job(RetrievalJob):
    """What both jobs share: no on-demand views of their own, and saving."""

    _root: Root
    _metadata: RetrievalMetadata | None = None

    @property
    def full_feature_names(self) -> bool:
        return False

    @property
    def on_demand_feature_views(self) -> list[OnDemandFeatureView]:
        return []

    @property
    def metadata(self) -> RetrievalMetadata | None:
        return self._metadata

    def _to_df_internal(self, timeout: int | None = None) -> pd.DataFrame:
        return self._to_arrow_internal(timeout).to_pandas()

    def persist(self, storage: Any, allow_overwrite: bool = False, timeout: int | None = None) -> None:
        """Save the result as one Parquet file, of a path below the store's, or as a Postgres table of its own."""
        if type(storage).__name__ == "SavedDatasetPostgreSQLStorage":  # by name: see `sources.in_postgres`
            from feature_repo import postgres_parts

            source = storage.to_data_source()
            url = sources.postgres_url(source, self._root)
            if not postgres_parts.save(source, url, self.to_arrow(timeout=timeout), allow_overwrite):
                raise SavedDatasetLocationAlreadyExists(location=source.name)
            return
        if not isinstance(storage, SavedDatasetFileStorage):
            raise TypeError(
                f"Saved data set storage {type(storage).__name__}: this store writes SavedDatasetFileStorage "
                "and SavedDatasetPostgreSQLStorage."
            )
        path = sources.parquet_path(storage.to_data_source(), self._root)
        if path.exists() and not allow_overwrite:
            raise SavedDatasetLocationAlreadyExists(location=str(path))
        pq.write_table(self.to_arrow(timeout=timeout), path)


class TableJob(_Job):
    """Rows that a function reads when they are asked for."""

    def __init__(self, root: Root, run: Callable[[], pa.Table]) -> None:
        self._root = root
        self._run = run

    def _to_arrow_internal(self, timeout: int | None = None) -> pa.Table:
        return self._run()


class HistoricalJob(_Job):
    """A training set: the entity rows in their order, each with its features as of its event time."""

    def __init__(
        self,
        root: Root,
        feature_views: list[Any],
        feature_refs: list[str],
        rows: pa.Table,
        registry: Any,
        project: str,
        full_feature_names: bool,
        filter_by_created: bool,
        memory: int,
    ) -> None:
        self._root = root
        self._rows = rows
        self._full_names = full_feature_names
        self._at = _event_time(rows.schema)
        self._odfvs = _requested_odfvs(feature_refs, registry, project)
        self._requested = set(feature_refs)
        absent = get_expected_join_keys(project, feature_views, registry) - set(rows.column_names)
        if absent:
            raise InvalidEntityRows(f"Entity rows have no column {', '.join(sorted(absent))}; a view joins by it.")
        if rows[self._at].null_count:
            raise InvalidEntityRows(f"Entity rows: {self._at} is null in {rows[self._at].null_count} of {len(rows)}.")
        at = sources.instants(rows[self._at]).to_numpy().astype(np.int64, copy=False)
        self._joins = plan_joins(root, feature_views, feature_refs, registry, project, at, filter_by_created)
        windowed = {join.view for join in self._joins if isinstance(join, WindowedJoin)}  # their states don't come out
        together = [views for views in (_inputs_of(odfv) & windowed for odfv in self._odfvs) if len(views) > 1]
        for join in self._joins:
            # Two views that one transformation asks cannot be gone through part by part: their entities differ.
            if isinstance(join, WindowedJoin) and not any(join.view in views for views in together):
                join.memory = memory // len(windowed)
        self._metadata = RetrievalMetadata(
            features=[ref for ref in feature_refs if ref.split(":", 1)[0] not in windowed],
            keys=[name for name in rows.column_names if name != self._at],
            min_event_timestamp=from_us(int(at.min())) if len(at) else None,
            max_event_timestamp=from_us(int(at.max())) if len(at) else None,
        )

    @property
    def full_feature_names(self) -> bool:
        return self._full_names

    def batches(self) -> Iterator[pa.RecordBatch]:
        """The training set in batches of at most `CHUNK` rows, in order: for sets that exceed memory."""
        with TemporaryDirectory(prefix="tollgate-history-") as folder:
            for join in self._joins:
                join.prepare(self._rows, Path(folder))
            apart = self._finish_apart(Path(folder))
            yield from ahead(lambda begin: self._chunk(begin, apart), range(0, max(self._rows.num_rows, 1), CHUNK))

    def _to_arrow_internal(self, timeout: int | None = None) -> pa.Table:
        return pa.Table.from_batches(self.batches())

    def _finish_apart(self, folder: Path) -> dict[str, Columns]:
        """The columns of the on-demand views over a history on disk, part of it after part."""
        found: dict[str, Columns] = {}
        for join in self._joins:
            if not isinstance(join, WindowedJoin) or not join.divided:
                continue
            over = [odfv for odfv in self._odfvs if join.view in _inputs_of(odfv)]
            found |= {odfv.name: Columns(folder, self._rows.num_rows, self._wanted(odfv)) for odfv in over}
            for places, history in join.parts(self._rows):
                cuts = [places[begin : begin + CHUNK] for begin in range(0, len(places), CHUNK)]
                for _ in ahead(partial(self._finish_part, join, history, over, found), cuts):
                    pass
                del history  # before the next is read
        return found

    def _finish_part(
        self, join: WindowedJoin, history: History, over: list[Any], found: dict[str, Columns], places: Ints
    ) -> None:
        rows = taken(self._rows, places).combine_chunks()
        inputs: dict[str, Any] = {name: rows[name].combine_chunks() for name in rows.column_names}
        for other in self._joins:
            if other is join:
                columns = join.questions(history, rows, places)
            elif isinstance(other, StoredJoin):
                columns = other.columns(rows, places)
            else:
                continue
            inputs |= {f"{other.view}__{feature}": column for feature, column in columns.items()}
        for odfv in over:
            features = self._transform(odfv, inputs)
            found[odfv.name].put(places, features)
            found[odfv.name].let_go()

    def _chunk(self, begin: int, apart: Mapping[str, Columns]) -> pa.RecordBatch:
        rows = self._rows.slice(begin, CHUNK).combine_chunks()
        places = slice(begin, begin + rows.num_rows)
        result = {name: rows[name].combine_chunks() for name in rows.column_names}
        inputs: dict[str, Any] = dict(result)
        for join in self._joins:
            if isinstance(join, WindowedJoin) and join.divided:
                continue
            for feature, column in join.columns(rows, places).items():
                inputs[f"{join.view}__{feature}"] = column
                if f"{join.view}:{feature}" in self._requested and not join.implied(feature):
                    result[f"{join.view}__{feature}" if self._full_names else feature] = join.stored(column)
        for odfv in self._odfvs:
            if odfv.name in apart:
                features: Mapping[str, Any] = apart[odfv.name].get(places)
                apart[odfv.name].let_go()
            else:
                features = self._transform(odfv, inputs)
            name = odfv.projection.name_to_use()
            result |= {f"{name}__{f}" if self._full_names else f: features[f] for f in self._wanted(odfv)}
        return pa.RecordBatch.from_pydict({name: _array(column) for name, column in result.items()})

    def _wanted(self, odfv: OnDemandFeatureView) -> list[str]:
        name = odfv.projection.name_to_use()
        return [field.name for field in odfv.features if f"{name}:{field.name}" in self._requested]

    def _transform(self, odfv: OnDemandFeatureView, inputs: Mapping[str, Any]) -> Mapping[str, Any]:
        if odfv.tags.get(VECTORISED_TAG) == "true":
            features: Mapping[str, Any] = odfv.feature_transformation.udf(inputs)
            return features
        stored = {name: column for name, column in inputs.items() if isinstance(column, pa.Array)}
        table = odfv.transform_arrow(pa.table(stored), False)
        # A chunk without a value has no type of its own.
        kinds = {field.name: from_feast_to_pyarrow_type(field.dtype) for field in odfv.features}
        return {name: pc.cast(table[name], kind) for name, kind in kinds.items()}


def _inputs_of(odfv: OnDemandFeatureView) -> set[str]:
    """The views of which an on-demand view takes features, by the names under which they are joined."""
    return {projection.name_to_use() for projection in odfv.source_feature_view_projections.values()}


def _event_time(schema: pa.Schema) -> str:
    """The column of the rows' instants: the only timestamp there is, else `event_timestamp`."""
    stamps = [field.name for field in schema if pa.types.is_timestamp(field.type)]
    if len(stamps) == 1:
        return str(stamps[0])
    if DEFAULT_ENTITY_DF_EVENT_TIMESTAMP_COL in stamps:
        return str(DEFAULT_ENTITY_DF_EVENT_TIMESTAMP_COL)
    raise InvalidEntityRows(
        f"Entity rows have {', '.join(stamps) or 'no column'} of type timestamp; must be one, or one of them "
        f"'{DEFAULT_ENTITY_DF_EVENT_TIMESTAMP_COL}'."
    )


def _requested_odfvs(feature_refs: list[str], registry: Any, project: str) -> list[OnDemandFeatureView]:
    names = {reference.split(":", 1)[0] for reference in feature_refs}
    return [view for view in registry.list_on_demand_feature_views(project, allow_cache=True) if view.name in names]


def _array(column: Any) -> pa.Array:
    if isinstance(column, pa.ChunkedArray):
        return column.combine_chunks()
    if isinstance(column, np.ndarray) and column.dtype.kind == "f":
        return pa.array(column, from_pandas=True)  # NaN is null
    return column if isinstance(column, pa.Array) else pa.array(column)


__all__ = ["CHUNK", "HistoricalJob", "InvalidEntityRows", "StoredJoin", "TableJob", "WindowedJoin"]
