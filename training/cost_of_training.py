"""What a candidate's fit costs, against the plain library call on the same matrix: seconds and peak memory.

Each fit has a process of its own, so that its peak is its own and nothing is warm from another's.
"""

from __future__ import annotations

import argparse
import json
import re
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from feature_repo.settings import ROOT

Who = Literal["ours", "plain"]

REPEATS = 3
TASK = "task.json"


def measure(
    name: str,
    vectors: npt.NDArray[np.float32],
    fraud: npt.NDArray[Any],
    columns: tuple[str, ...],
    repeats: int = REPEATS,
) -> dict[str, float]:
    """`seconds` and `peak_mb` of the candidate's fit, `plain_seconds` and `plain_peak_mb` of the library's own.

    `vectors` is float32 (rows, columns), null as NaN. The two take turns `repeats` times; of each the quickest counts,
    and its largest peak, which is that of the whole process: interpreter, libraries and matrix included.
    """
    found: dict[Who, list[dict[str, float]]] = {"ours": [], "plain": []}
    with tempfile.TemporaryDirectory() as written:
        folder = Path(written)
        np.save(folder / "vectors.npy", np.ascontiguousarray(vectors, np.float32))
        np.save(folder / "fraud.npy", np.asarray(fraud, np.int8))
        (folder / TASK).write_text(json.dumps({"name": name, "columns": list(columns)}))
        for turn in range(repeats):
            for who in (("ours", "plain"), ("plain", "ours"))[turn % 2]:
                found[who].append(_in_its_own_process(folder, who))
    best = {who: min(each["seconds"] for each in runs) for who, runs in found.items()}
    peak = {who: max(each["peak_mb"] for each in runs) for who, runs in found.items()}
    return {
        "seconds": best["ours"],
        "peak_mb": peak["ours"],
        "plain_seconds": best["plain"],
        "plain_peak_mb": peak["plain"],
    }


def _in_its_own_process(folder: Path, who: Who) -> dict[str, float]:
    command = [sys.executable, "-m", "training.cost_of_training", str(folder), who]
    done = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)  # noqa: S603 — our own module
    read: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return read


def plain(name: str, columns: tuple[str, ...]) -> Any:
    """The library's estimator with the candidate's parameters, as one would call it without this project.

    It takes the matrix as it is; only scikit-learn's boosting is given 0 in the columns that are null throughout, which
    it refuses. For a linear model, which knows no nulls, scikit-learn's imputer and scaler go first.
    """
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    from training.calibrate import classifier_of
    from training.models import CANDIDATES

    classifier = classifier_of(CANDIDATES[name](columns))
    bare = type(classifier)(**classifier.get_params())
    if isinstance(bare, LogisticRegression):
        imputer = SimpleImputer(strategy="median", keep_empty_features=True)
        return make_pipeline(imputer, StandardScaler(), bare)
    if isinstance(bare, HistGradientBoostingClassifier):
        return HistGradientBoostingClassifier(**bare.get_params())
    return bare


def peak_mb() -> float:
    """The most memory (MB) that this process has had resident.

    Linux hands a parent's peak on to what it starts as `ru_maxrss`; the kernel's own high-water mark is this process's.
    """
    status = Path("/proc/self/status")
    found = re.search(r"VmHWM:\s+(\d+) kB", status.read_text()) if status.exists() else None
    return int(found[1]) / 1024 if found else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def main() -> None:
    """Fit once, and print what it took."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("who", choices=("ours", "plain"))
    arguments = parser.parse_args()
    task = json.loads((arguments.folder / TASK).read_text())
    name, columns = task["name"], tuple(task["columns"])
    from training.models import CANDIDATES

    model = CANDIDATES[name](columns) if arguments.who == "ours" else plain(name, columns)
    vectors, fraud = np.load(arguments.folder / "vectors.npy"), np.load(arguments.folder / "fraud.npy")
    if arguments.who == "plain" and name == "hist_gradient_boosting":
        vectors[:, np.isnan(vectors).all(axis=0)] = 0
    began = time.perf_counter()
    model.fit(vectors, fraud)
    seconds = time.perf_counter() - began
    print(json.dumps({"seconds": seconds, "peak_mb": peak_mb()}))


if __name__ == "__main__":
    main()
