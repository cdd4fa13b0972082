"""The data sets by name: which there are, where their files go, and which one is used when nobody says.

`python -m training.datasets.catalogue` prints how to get the public ones. Nothing is downloaded.
"""

from __future__ import annotations

from pathlib import Path

from feature_repo.settings import settings
from training.datasets import handbook, sparkov, synthetic, table
from training.datasets.dataset import Dataset
from training.datasets.source import UnreadableSource

PUBLIC = {handbook.NAME: handbook, sparkov.NAME: sparkov}
NAMES = (*PUBLIC, synthetic.NAME)

_DESCRIPTION = """\
Data sets (`--dataset NAME`, or the path of your own file)

  handbook   {handbook_state}
             Fraud Detection Handbook, simulated data: 1,303,778 transactions, 0.82 % fraud, 2018.
             Get the GitHub repository Fraud-Detection-Handbook/simulated-data-raw and join its daily files:
               import pandas as pd, pathlib
               days = sorted(pathlib.Path("simulated-data-raw/data").glob("*.pkl"))
               pd.concat(map(pd.read_pickle, days)).to_parquet("{folder}/{handbook_file}")
             A pickle runs code when it is read: take the files from that repository only.

  sparkov    {sparkov_state}
             Rows of the Sparkov generator: GitHub repository namebrandon/Sparkov_Data_Generation.
             Run it, join its files of transactions (separator `|`) and make one column of date and time:
               rows = pd.concat(pd.read_csv(f, sep="|", dtype={{"cc_num": str}}) for f in files)
               rows["trans_ts"] = pd.to_datetime(rows.trans_date + " " + rows.trans_time)
               rows.to_parquet("{folder}/{sparkov_file}")

  synthetic  always there: generated from a seed, 100,000 transactions unless told otherwise.

  your own   a CSV or Parquet file; map its columns in <name>.mapping.toml beside it, one line per field:
               assume_utc = true            # only where its times have no offset and are in UTC
               card_id = "pan_token"
             Required: {required}.

The folder is FRAUD_DATA ({folder}). Without a name, handbook is used if it is there, else synthetic.
"""


def load_dataset(name_or_path: str | None, data_folder: Path, *, rows: int = 100_000, seed: int = 7) -> Dataset:
    """Load a data set by name or from a CSV or Parquet file; `None` is handbook where present, else synthetic.

    `rows` and `seed` concern the synthetic set alone. Raises `UnreadableSource` for an unknown name or a missing
    file, and `InvalidMapping` or `InvalidDataset` for a file that does not fit.
    """
    if name_or_path is None:
        name_or_path = handbook.NAME if (data_folder / handbook.FILE).is_file() else synthetic.NAME
    if name_or_path == synthetic.NAME:
        return synthetic.load(rows, seed)
    if name_or_path in PUBLIC:
        public = PUBLIC[name_or_path]
        if not (data_folder / public.FILE).is_file():
            raise UnreadableSource(
                f"Data set {name_or_path!r}: {str(data_folder / public.FILE)!r} does not exist; "
                f"`python -m training.datasets.catalogue` says how to get it, FRAUD_DATA names the folder."
            )
        return public.load(data_folder)
    path = Path(name_or_path)
    if not path.suffix and not path.exists():
        raise UnreadableSource(
            f"Data set {name_or_path!r}: no such name; must be {', '.join(NAMES)} or the path of a CSV or Parquet file."
        )
    return table.load(path)


def describe(data_folder: Path) -> str:
    """Tell which data sets there are, how to get them and where their files go."""
    states = {
        f"{name}_state": f"{'ready' if (data_folder / public.FILE).is_file() else 'not there'}: {public.FILE}"
        for name, public in PUBLIC.items()
    }
    return _DESCRIPTION.format(
        folder=data_folder,
        handbook_file=handbook.FILE,
        sparkov_file=sparkov.FILE,
        required=", ".join(table.REQUIRED_COLUMNS),
        **states,
    )


if __name__ == "__main__":
    print(describe(settings().data))
