"""A metric as the catalogue declares it; the prometheus_client object behind it is made on first use, once.

Invariant: importing or listing declarations imports no prometheus_client. That library decides between one process and
several when it is imported, and in a BentoML worker `PROMETHEUS_MULTIPROC_DIR` must be set by then.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar, cast, overload

import numpy as np
import numpy.typing as npt

from feature_repo.settings import settings

if TYPE_CHECKING:
    from prometheus_client import Counter, Gauge, Histogram

M = TypeVar("M")

GaugeMode = Literal["mostrecent", "livemax"]

Bound = str | tuple[str, ...]
"""What bounds a label: its values, or in words where they come from."""

_making = threading.Lock()


@dataclass(eq=False)
class Metric(Generic[M]):
    """One entry. As an attribute of a catalogue's class it answers itself, of a catalogue's instance the live object.

    `labels` maps each label to what bounds its values; `options` go to prometheus_client as they are. With
    FRAUD_METRICS=off the live object is one that counts nothing.
    """

    kind: str
    name: str
    unit: str
    meaning: str
    action: str
    labels: Mapping[str, Bound] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    attribute: str = ""

    def __set_name__(self, owner: type, attribute: str) -> None:
        self.attribute = attribute

    @overload
    def __get__(self, instance: None, owner: type) -> Metric[M]: ...
    @overload
    def __get__(self, instance: object, owner: type) -> M: ...
    def __get__(self, instance: object | None, owner: type) -> Metric[M] | M:
        if instance is None:
            return self
        with _making:
            # No __set__ here: once it lies in the instance's dictionary, Python finds it there and never asks again.
            made = vars(instance).get(self.attribute)
            if made is None:
                made = vars(instance)[self.attribute] = self._make() if settings().metrics else Uncounted()
        return cast(M, made)

    def combinations(self) -> list[dict[str, str]]:
        """Every set of label values that the metric can have; none where a label is bounded in words alone."""
        values = [bound for bound in self.labels.values() if isinstance(bound, tuple)]
        if len(values) < len(self.labels):
            return []
        return [dict(zip(self.labels, chosen, strict=True)) for chosen in product(*values)]

    def _make(self) -> M:
        import prometheus_client

        # A second series for each of ours, which says when this process first counted: nobody asks.
        prometheus_client.disable_created_metrics()
        factory = getattr(prometheus_client, self.kind.capitalize())
        made: M = factory(self.name, self.meaning, labelnames=tuple(self.labels), **self.options)
        return made


class Uncounted:
    """Stands in for a metric of any kind and counts nothing."""

    def labels(self, **_: str) -> Uncounted:
        """See prometheus_client."""
        return self

    def inc(self, _: float = 1.0) -> None:
        """See prometheus_client."""

    def set(self, _: float) -> None:
        """See prometheus_client."""

    def observe(self, _: float) -> None:
        """See prometheus_client."""


def counter(name: str, unit: str, *, meaning: str, action: str, **labels: Bound) -> Metric[Counter]:
    """Declare a count that only grows; exported as the sum over all worker processes."""
    return Metric("counter", name, unit, meaning, action, labels)


def gauge(
    name: str, unit: str, *, meaning: str, action: str, mode: GaugeMode = "mostrecent", **labels: Bound
) -> Metric[Gauge]:
    """Declare a value of now; only `.set` it. `mode` says what stands where several worker processes have set it.

    `mostrecent`: what was set last, whoever did, for what all workers agree on. `livemax`: the largest among the
    workers that live, for a state in which one worker alone is already news.
    """
    return Metric("gauge", name, unit, meaning, action, labels, {"multiprocess_mode": mode})


def histogram(name: str, unit: str, buckets: Sequence[float], *, meaning: str, action: str) -> Metric[Histogram]:
    """Declare a distribution with these upper bounds (+Inf is added); exported as the sum over all worker processes."""
    return Metric("histogram", name, unit, meaning, action, {}, {"buckets": tuple(buckets)})


def observe_many(made: Histogram, values: npt.NDArray[np.float64]) -> None:
    """`made.observe` of each value, at the price of one for each bucket that is touched.

    prometheus_client has no such call; `tests/unit/test_metrics.py` holds the two to the same samples.
    """
    if isinstance(made, Uncounted):
        return
    places = np.searchsorted(np.asarray(made._upper_bounds), values)  # a value on a bound belongs below it
    counts = np.bincount(places, minlength=len(made._buckets)).tolist()
    for place, count in enumerate(counts):
        if count:
            made._buckets[place].inc(float(count))
    made._sum.inc(float(values.sum()))


def declared(catalogue: type) -> Iterator[Metric[Any]]:
    """The entries of a catalogue's class and of those it is made of, the last base's first, in order."""
    return (entry for of in reversed(catalogue.__mro__) for entry in vars(of).values() if isinstance(entry, Metric))


def begin(live: object, catalogue: type) -> None:
    """Export this catalogue's counts and distributions from 0 on, so that what is counted first is an increase too.

    A labelled one begins where its label values are known. `live` is the instance whose class has the catalogue.
    """
    for entry in declared(catalogue):
        if entry.kind == "gauge":
            continue
        made = getattr(live, entry.attribute)
        for values in entry.combinations() if entry.labels else ():
            made.labels(**values)
