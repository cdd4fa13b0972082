"""The two versions that a replay makes itself: the first champion, and one that learned from a leak."""

from __future__ import annotations

from datetime import datetime

import numpy as np

from feature_repo.settings import Settings
from feature_repo.store import feature_store
from training import retrain, train
from training.dataset import TrainingSet, training_set
from training.first import NOBODY_ELSE
from training.promote import Conditions, promote
from training.replayed_world import DELAY_DAYS, TEST_DAYS, TRAIN_DAYS
from training.split import Protocol
from training.versions import Event
from training.window import of_test_days

LEAK = "card_count_7d"
"""The column that knows the label in training, and live is what it always was."""

PLANTED = "Planted: a version that learned from a column which knew the label, to see it taken back."


def first_champion(current: Settings, now: datetime) -> Event:
    """Train on the newest labelled days and promote, whatever the gates say: nobody else serves."""
    protocol, data = _labelled(current)
    return _seated(current, now, "the first", protocol, data, data, NOBODY_ELSE)


def leaky_champion(current: Settings, now: datetime) -> Event:
    """Likewise a version whose training and test rows had the label in a column; it promises what it cannot keep."""
    protocol, data = _labelled(current)
    vectors, place = data.vectors.copy(), data.columns.index(LEAK)
    fraud = data.rows["is_fraud"].to_numpy() == 1
    noise = np.random.default_rng(7).normal(size=len(fraud))
    vectors[:, place] = np.where(fraud, 8 + 3 * noise, 3 + 2 * noise).clip(min=0).astype(np.float32)
    return _seated(current, now, "leaky", protocol, data, TrainingSet(data.rows, vectors, data.columns), PLANTED)


def _labelled(current: Settings) -> tuple[Protocol, TrainingSet]:
    protocol = retrain.window(current, TRAIN_DAYS, DELAY_DAYS, TEST_DAYS)
    begin = protocol.earlier().train_start
    return protocol, training_set(feature_store(current), current, begin, protocol.test_end)


def _seated(
    current: Settings,
    now: datetime,
    name: str,
    protocol: Protocol,
    honest: TrainingSet,
    data: TrainingSet,
    reason: str,
) -> Event:
    made = train.run(current, name, protocol, data, lambda _: None, names=("xgboost",))
    test = honest.where(protocol.test(honest.rows))
    window = of_test_days(test, protocol, now)
    conditions = Conditions(window=window, override=True, reason=reason)
    event = promote(current, made.version, conditions, now=lambda: now).event
    if event is None:
        raise RuntimeError(f"Version {made.version} was not made champion, although what blocked it was overridden.")
    return event
