"""What the cards say of the datasets that a run used: a line below its tables for each that has a warning.

The record of a file is ``results/datasets/<name>.json``, which ``python -m safemil.datasets card`` writes; it is found
by the SHA-256 that every trial has. Data without a record get no line.
"""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd

FOLDER = Path(__file__).parent.parent / "results" / "datasets"


def dataset_warnings(trials: pd.DataFrame, folder: Path = FOLDER) -> list[str]:
    """ "Data of BallCircle: trajectory AUROC is trivial here: ...", for each file of ``trials`` with warnings."""
    records = [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]
    used = set(trials["dataset_sha256"].dropna())
    return [
        f"Data of {record['task']}: {'; '.join(record['warnings'])}."
        for record in records
        if record["sha256"] in used and record["warnings"]
    ]
