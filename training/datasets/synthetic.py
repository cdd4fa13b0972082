"""The generated history as a `Dataset`: what `training.generate` knows and a payment does not carry stays behind."""

from __future__ import annotations

import pandas as pd

from training.datasets.dataset import Dataset, conform
from training.datasets.profiles import PROFILE_FIELDS, conform_profiles
from training.generate import generate

NAME = "synthetic"
ROWS = 100_000
"""Payments of a generated history, where nobody says another number."""


def load(rows: int = ROWS, seed: int = 7, days: int = 150) -> Dataset:
    """Generate a history; the same arguments give the same data set. Raises `ValueError` for too few rows or days."""
    return adapt(generate(rows, seed, days))


def adapt(raw: pd.DataFrame) -> Dataset:
    """Map a frame of `generate`: the schema's columns, the label and the profiles; never the scenario."""
    profiles = conform_profiles(raw[["card_id", *PROFILE_FIELDS]], name=NAME)
    return conform(raw, name=NAME, origin="generated", profiles=profiles)
