"""Is the difference between two models more than luck?

    tests = statistics.paired_wilcoxon(aurocs)                     # (M, T): all pairs of models, over all tasks
    found = statistics.venkatraman(scores_1, scores_2, labels, mask)     # .p_value (T,): equal ROC curves?
    found = statistics.delong(scores_1, scores_2, labels, mask)          # .p_value (T,): equal AUROCs? fast
    found = statistics.compare(scores_1, scores_2, labels, mask)         # .outcome (T,): 1, 0 or -1
    adjusted = statistics.benjamini_hochberg(p_values)

Scores, labels and masks are (N, T), as in `coos.metrics.multitask`. What grows with the data runs compiled, all tasks
at once; p-values are taken on the host in float64. The functions are not to be called inside `jax.jit`.

The subjects of a test are the rows: average the views of a well, or the wells of a compound, first
(`multitask.average`), since views of one compound are not independent.
"""

from coos.metrics.statistics.comparison import Comparison, compare
from coos.metrics.statistics.correction import benjamini_hochberg
from coos.metrics.statistics.delong import DeLong, delong
from coos.metrics.statistics.venkatraman import Venkatraman, venkatraman
from coos.metrics.statistics.wilcoxon import PairedWilcoxon, paired_wilcoxon

__all__ = [
    "Comparison",
    "DeLong",
    "PairedWilcoxon",
    "Venkatraman",
    "benjamini_hochberg",
    "compare",
    "delong",
    "paired_wilcoxon",
    "venkatraman",
]
