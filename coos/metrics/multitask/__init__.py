"""Many binary tasks at once, where most labels are missing: which of 209 assays would a compound hit?

    values = multitask.auroc(scores, labels, mask)                  # (T,), NaN where undefined
    values = multitask.average_precision(scores, labels, mask)
    values = multitask.f1(scores, labels, mask, threshold=0.5)
    active, inactive = multitask.counts(labels, mask)
    means = multitask.summary(scores, labels, mask)                 # {"mean_auroc": ..., ...}
    wells, averaged = multitask.average(scores, well)               # views -> wells
    wells, targets = multitask.group_labels(labels, well)
    found = multitask.bootstrap(scores, labels, mask, groups=compound)      # .low, .high, .mean_low, ...

`scores` is (N, T) float, `labels` (N, T) with active > 0, `mask` (N, T) says which are labelled (None: all). The
first four are pure JAX and can be called inside `jax.jit`; the others give NumPy arrays or numbers. What counts as a
tie, and what NaN scores do, is said in `scores`.

A value that the data do not define is NaN here. Others say something else, and some of it looks like a result.
What scikit-learn 1.9.1 (`roc_auc_score(y, s)`, `average_precision_score(y, s)`, `f1_score(y, s >= 0.5)`) and
torchmetrics 1.9.0 (`BinaryAUROC()`, `BinaryAveragePrecision()`, `BinaryF1Score()` called with (s, y)) answer:

    value              labels          coos            scikit-learn           torchmetrics
    AUROC              no active       NaN             NaN, warns             0, warns
    AUROC              no inactive     NaN             NaN, warns             0, warns
    AUROC              none at all     NaN             ValueError             IndexError
    average precision  no active       NaN             0, warns               -0, warns
    average precision  no inactive     1               1                      1
    average precision  none at all     NaN             IndexError             IndexError
    F1                 no active       0, or NaN (*)   0, warns if (*)        0
    F1                 none at all     NaN             ValueError             RuntimeError

    (*) if nothing is predicted active either, so that F1 is 0/0

For a matrix of tasks, `roc_auc_score` (average="macro") is NaN as soon as one task is. `MultilabelAUROC` and
`MultilabelAveragePrecision` (num_labels=T, average="macro", ignore_index=-1) put these zeros into the mean, and raise
an IndexError if any task has no label at all; `MultilabelF1Score` takes 0 for that too. The published code of
Hofmarcher et al. 2019 counts an undefined AUROC as 0.5: `undefined="half"`, and `mean_auroc_half` of `summary`.
"""

from coos.metrics.multitask.bootstrap import Bootstrap, bootstrap
from coos.metrics.multitask.scores import auroc, average_precision, counts, f1, placements
from coos.metrics.multitask.summary import average, group_labels, summary

__all__ = [
    "Bootstrap",
    "auroc",
    "average",
    "average_precision",
    "bootstrap",
    "counts",
    "f1",
    "group_labels",
    "placements",
    "summary",
]
