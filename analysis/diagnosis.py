"""Why a result may be what it is: the failure signatures found, and what the learned score looks like. Tables.

In: the trials with the diagnostics in their rows (safemil/evaluation/diagnostics.py). Out: ``Table``, None where
nothing is known.
"""

from __future__ import annotations

import pandas as pd

from analysis import labels
from analysis.load import Run
from analysis.table_text import Cell, Row, Table
from analysis.tables import decimal

# signature -> the test it rests on, the usual cause; the tests themselves are safemil/evaluation/diagnostics.py's
SIGNATURES = {
    "cost collapse": (
        "MIL loss within 0.01 of log 2, AUROC N:U near 0.5",
        "K or learning rate too small, D_N like D_U",
    ),
    "memorized D_N": ("AUROC N:U far higher in training than held out", "few trajectories in D_N, long training"),
    "D_N of another kind": (
        "AUROC N:U above 0.9 in training and held out, though D_U's bad part should look like D_N",
        "D_N dearer than D_U's bad part, or D_U nearly clean",
    ),
    "over-saturation": ("more than 95 % of step costs at 0 or 1, AUROC N:U below 0.6", "score scale too large"),
    "weight collapse": ("effective sample size below 5 % of D_U", "weight temperature too small"),
    "length shortcut": ("score correlated with trajectory length above 0.8", "scores not normalized by length"),
    "safe but immobile": ("return and cost below 0.1, score follows the return", "the cost learned progress, not risk"),
}
# column of trials.csv -> heading
DIAGNOSTICS = {
    "auroc": "AUROC ↑",
    "auroc_unlabeled": "AUROC N:U ↑",
    "auroc_unlabeled_train": "in training",
    "oracle_cost_spearman": "Spearman, true cost ↑",
    "oracle_step_auroc": "Step AUROC ↑",
    "saturated_share": "Saturated steps ↓",
    "length_correlation": "Length corr.",
    "weight_ess_share": "ESS of D_U",
}


def signatures_table(run: Run) -> Table | None:
    """Every failure signature found: a block for each, a row for each task, method and setting that shows it."""
    found: dict[str, list[Row]] = {}
    for (task, method, *values), group in run.trials.groupby(["task", "method", *run.axes], sort=True, dropna=False):
        shown = [{name.strip() for name in cell.split(";") if name.strip()} for cell in group["warnings"]]
        name, anchor = labels.variant_label(method, run.axes, values), labels.anchor(task, method, values)
        for signature in sorted(set().union(*shown)):
            count = sum(signature in names for names in shown)
            cells = (Cell(f"{task}, {name}", f"{task} {name}"), Cell(f"{count} of {len(group)}", count, anchor=anchor))
            cells += tuple(_mean(group, column, anchor) for column in ("normalized_return", "normalized_cost"))
            found.setdefault(signature, []).append(Row(_headline(signature), labels.method_role(method), cells))
    if not found:
        return None
    rows = tuple(row for signature in sorted(found) for row in found[signature])
    notes = (
        "Return and cost: means over all seeds of the row. A signature is a suspicion: it says where to look first.",
    )
    return Table(
        "signatures", "Failure signatures found", "Signature", ("Where", "Seeds", "Return", "Cost"), rows, notes
    )


def diagnostics_table(run: Run) -> Table | None:
    """Means over seeds of what the score looks like, for every task, method and setting that has a score."""
    columns = [name for name in DIAGNOSTICS if name in run.trials and _numbers(run.trials[name]).notna().any()]
    rows = []
    for (task, method, *values), group in run.trials.groupby(["task", "method", *run.axes], sort=True, dropna=False):
        if any(_numbers(group[name]).notna().any() for name in columns):
            name, anchor = labels.variant_label(method, run.axes, values), labels.anchor(task, method, values)
            cells = [Cell(name, name), *[_mean(group, column, anchor) for column in columns]]
            order = (task, labels.group_order(method, values))
            rows.append((order, Row(task, labels.method_role(method), tuple(cells))))
    if not rows:
        return None
    notes = (
        "Means over seeds. AUROC: non-preferred against preferred trajectories that training never used; N:U: D_N"
        " against D_U, held out, at most (1 + p) / 2. Step AUROC: steps that truly cost against steps that do not. ESS:"
        " effective sample size of the weights as a share of D_U.",
    )
    ordered = tuple(row for _, row in sorted(rows, key=lambda pair: pair[0]))
    header = ("Method", *[DIAGNOSTICS[name] for name in columns])
    return Table("diagnostics", "What the score looks like", "Task", header, ordered, notes)


def _headline(signature: str) -> str:
    if signature not in SIGNATURES:
        return signature
    test, cause = SIGNATURES[signature]
    return f"{signature}: {test}; usually {cause}"


def _mean(group: pd.DataFrame, column: str, anchor: str) -> Cell:
    value = _numbers(group[column]).mean()
    return Cell(decimal(value), value, anchor=anchor)


def _numbers(column: pd.Series) -> pd.Series:
    return pd.to_numeric(column, errors="coerce")
