"""The retrieval metrics as one would write them on a napkin: float64, full matrices, loops. For tests only."""

import numpy as np
import scipy.stats


def similarities(features, similarity="pearson"):
    x = np.asarray(features, np.float64)
    if similarity == "cosine":
        length = np.sqrt((x**2).sum(1))
        return x @ x.T / length[:, None] / length
    if similarity == "spearman":
        x = scipy.stats.rankdata(x, axis=1)
    return np.corrcoef(x)


def matching(labels):
    labels = np.asarray(labels)
    if labels.ndim == 2:
        found = np.array([[bool((a & b).any()) for b in labels] for a in labels.astype(bool)])
    else:
        found = np.array([[bool(a == b and a >= 0) for b in labels] for a in labels])
    np.fill_diagonal(found, False)
    return found


def allowed(count, exclude=()):
    found = ~np.eye(count, dtype=bool)
    for group in exclude:
        found &= ~((group[:, None] == group[None]) & (group >= 0)[:, None])
    return found


def rows(features, labels, *, similarity="pearson", exclude=()):
    """(similarities to its neighbours, which of them match) of every row."""
    s, m, ok = similarities(features, similarity), matching(labels), allowed(len(features), exclude)
    return [(s[i][ok[i]], m[i][ok[i]]) for i in range(len(s))]


def expected_over_ties(values, match, score, *, orders=None):
    """Mean of `score(match in order)` over all orders of tied neighbours, or over random ones."""
    generator = np.random.default_rng(0)
    total = 0.0
    for _ in range(orders):
        order = np.lexsort((generator.random(len(values)), -values))
        total += score(match[order])
    return total / orders


def hits_within(values, match, k):
    """Expected matches among the first k: whole ties above the cut, a share of the tie at the cut."""
    found, left = 0.0, k
    for value in np.unique(values)[::-1]:
        tied = values == value
        taken = min(left, tied.sum())
        found += match[tied].sum() * taken / tied.sum()
        left -= taken
        if not left:
            break
    return found


def pairs(features, labels, *, similarity="pearson", exclude=()):
    """(similarity, matches) of every unordered pair that counts."""
    s, m, ok = similarities(features, similarity), matching(labels), allowed(len(features), exclude)
    upper = np.triu(ok, 1)
    return s[upper], m[upper]


def table(features, labels, percentile, **options):
    s, m = pairs(features, labels, **options)
    above = s > np.quantile(s, percentile)
    return [[(above & m).sum(), (above & ~m).sum()], [(~above & m).sum(), (~above & ~m).sum()]]
