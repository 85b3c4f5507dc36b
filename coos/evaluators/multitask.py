"""Scores of assay predictions, and what the number of cells alone would have predicted."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from sklearn.linear_model import LogisticRegression

from coos.data.source import Source
from coos.metrics import multitask
from coos.train.multitask import pooled
from coos.workdir import Predictions


def score_set(predictions: Predictions, *, config: Any, dataset: Mapping[str, Any]) -> dict[str, float]:
    """{metric: value} of the "n" wells (or what `config.evaluation.level` says): means, counts, and `auroc/<assay>`.

    Undefined assays are left out of the means and counted; "mean_auroc_half" takes them as 0.5 as the published
    evaluation does.
    """
    found = pooled(predictions, level=config.evaluation.level)
    labels, mask = found.labels > 0, found.labels != 0
    values = multitask.summary(found.probabilities, labels, mask)
    per_assay = np.asarray(multitask.auroc(found.probabilities, labels, mask))
    names = [f"auroc/{name}" for name in dataset["tasks"]]
    return {"n": len(found.ids), **values, **dict(zip(names, per_assay.tolist(), strict=True))}


def baseline(training: Callable[[], Source], judged: Source) -> Predictions | None:
    """`cell_count_baseline`, or None where the data set does not know its cells."""
    known = knows_cell_counts(judged) and knows_cell_counts(training())
    return cell_count_baseline(training(), judged) if known else None


def shared(training: Callable[[], Source], judged: Source) -> str:
    """How many compounds of `judged` the network was trained on, in words; "" if none."""
    compounds = set(judged.columns["compound"].tolist())
    known = compounds & set(training().columns["compound"].tolist())
    return f"{len(known)} of its {len(compounds)} compounds were trained on" if known else ""


def knows_cell_counts(source: Source) -> bool:
    """Whether the number of cells of every example is known."""
    return bool(len(source)) and bool((source.columns["cell_count"] >= 0).all())


def _wells(source: Source) -> Predictions:
    """Labels and mean cell counts of the wells of a source, without predictions."""
    nothing = np.zeros((len(source), 0), np.float32)
    return pooled(Predictions(source.ids, source.labels, nothing, source.columns), level="well")


def cell_count_baseline(training: Source, judged: Source) -> Predictions:
    """Probability of activity in every assay from nothing but the number of cells in the well.

    A logistic regression per assay on log(1 + cells), fitted to the training wells; where they show one class only, or
    none, its share of actives (1/2 for none). Its ranking is that of the cell count, up or down: what an image
    network does not beat is seen in the number of cells alone (Seal et al. 2026 find many such assays).
    """
    known, wanted = _wells(training), _wells(judged)
    center = np.log1p(known.columns["cell_count"])
    scale = center.std() or 1.0

    def input_of(wells: Predictions) -> np.ndarray:
        return ((np.log1p(wells.columns["cell_count"]) - center.mean()) / scale)[:, None]

    probabilities = np.empty(wanted.labels.shape, np.float32)
    for task in range(wanted.labels.shape[1]):
        measured = known.labels[:, task] != 0
        active = known.labels[measured, task] > 0
        if len(set(active.tolist())) < 2:
            probabilities[:, task] = active.mean() if len(active) else 0.5
        else:
            model = LogisticRegression().fit(input_of(known)[measured], active)
            probabilities[:, task] = model.predict_proba(input_of(wanted))[:, 1]
    return wanted._replace(probabilities=probabilities, columns={**wanted.columns, "well": wanted.ids})
