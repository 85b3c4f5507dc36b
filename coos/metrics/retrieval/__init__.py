"""Do profiles with one label (a mechanism of action, say) lie close together?

    enriched = retrieval.enrichment(features, labels, percentile=0.995)      # .odds_ratio, .p_value, .table, ...
    values = retrieval.precision_at_r(features, labels)                      # (N,), NaN where undefined
    mean, defined = retrieval.mean_defined(values)
    accuracy = retrieval.nearest_neighbor_accuracy(features, moa, exclude=compound, similarity="cosine")

`features` is (N, D), `labels` (N,) integers, negative = unlabelled, or multi-hot (N, M), where rows match that
share any label. `similarity` is "pearson", "cosine" or "spearman". `exclude` names one or several (N,) arrays of
groups (same compound, batch, plate or well position); pairs that share one do not count.

All similarities are looked at in blocks, in JAX, on all local devices: memory is O(N * block), never N². Block by
block the functions are compiled; what depends on labels alone (who matches whom, null distributions, the sums of
four counts in a contingency table) is NumPy. They take and give whole arrays and are not to be called inside
`jax.jit`; `ranking.rank_block`, `precision.score_ranks` and `precision.average_precision_of` are.

Similarities that are equal as float32 tie, and ties are counted exactly (see `ranking`): those of identical rows,
of ranks, of signs. Where equal similarities are rounded apart (few features, rows of different lengths) they are
not ties any more. A value the data do not define is NaN.
"""

from coos.metrics.retrieval.contingency import (
    Enrichment,
    batch_enrichment,
    enrichment,
    replicate_reproducibility,
)
from coos.metrics.retrieval.controls import Grit, MpValue, grit, mp_value
from coos.metrics.retrieval.hits import HitAtK, hit_at_k
from coos.metrics.retrieval.inputs import SIMILARITIES, defined_rows, encode, encode_sets
from coos.metrics.retrieval.precision import (
    average_precision,
    mean_defined,
    nearest_neighbor_accuracy,
    precision_at_k,
    precision_at_r,
    recall_at_k,
)
from coos.metrics.retrieval.significance import (
    MeanAveragePrecision,
    average_precision_null,
    average_precision_p_values,
    expected_average_precision,
    mean_average_precision,
    normalized_average_precision,
)
from coos.metrics.statistics.correction import benjamini_hochberg

__all__ = [
    "SIMILARITIES",
    "Enrichment",
    "Grit",
    "HitAtK",
    "MeanAveragePrecision",
    "MpValue",
    "average_precision",
    "average_precision_null",
    "average_precision_p_values",
    "batch_enrichment",
    "benjamini_hochberg",
    "defined_rows",
    "encode",
    "encode_sets",
    "enrichment",
    "expected_average_precision",
    "grit",
    "hit_at_k",
    "mean_average_precision",
    "mean_defined",
    "mp_value",
    "nearest_neighbor_accuracy",
    "normalized_average_precision",
    "precision_at_k",
    "precision_at_r",
    "recall_at_k",
    "replicate_reproducibility",
]
