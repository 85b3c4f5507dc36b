"""Profile processing and retrieval beside their peers: seconds and peak memory, each in a process of its own.

Features are random with a little class structure: their content does not matter for speed. Sizes are those of
the LINCS study: 1,144 compounds of 235 mechanisms, 12,082 wells on 136 plates with 24 controls each.

cytominer-eval does not import with today's pandas; `cytominer_eval` does what it does with pandas, step by step:
all pairs as rows of a long frame, labels merged to both ends, sorted within groups.
"""

import multiprocessing
import resource
import statistics
import time
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import polars as pl
import scipy.stats
from absl import logging

from coos.evaluators import retrieval as evaluator
from coos.profiles import consensus, normalize
from coos.profiles.table import Table

CONTROL = "Metadata_compound = 'DMSO'"
KS = (5, 10, 15, 20, 25, 30, 40, 50)
PERCENTILES = (0.995, 0.99, 0.985, 0.98, 0.975, 0.97, 0.965)


class Measured(NamedTuple):
    """Seconds of the first call (with compilation), median seconds of the later ones, peak GB of the process."""

    first: float
    seconds: float
    gigabytes: float


def compounds(count: int, width: int) -> Table:
    """Consensus profiles: `count` compounds, about five to a mechanism."""
    generator = np.random.default_rng(0)
    labels = generator.integers(0, max(count * 235 // 1144, 2), count)
    centres = 0.15 * generator.normal(size=(labels.max() + 1, width)).astype(np.float32)
    features = generator.standard_normal((count, width), np.float32) + centres[labels]
    metadata = pl.DataFrame(
        {"Metadata_compound": np.arange(count).astype(str), "Metadata_moa": labels.astype(str)}
    )
    return Table(metadata, features, tuple(f"feature_{i}" for i in range(width)))


def wells(width: int, *, plates: int = 136, treated: int = 65, extra: int = 0, controls: int = 24) -> Table:
    """Wells of many plates, `controls` of each DMSO; 136 · (65 + 24) - 22 are the thesis' 12,082."""
    generator = np.random.default_rng(0)
    per_plate = treated + controls
    count = plates * per_plate - extra
    plate = np.arange(count) // per_plate
    is_control = np.arange(count) % per_plate < controls
    compound = np.where(is_control, "DMSO", (np.arange(count) % 1571).astype(str))
    features = generator.standard_normal((count, width), np.float32) + 2
    metadata = pl.DataFrame({"Metadata_Plate": plate.astype(str), "Metadata_compound": compound})
    return Table(metadata, features, tuple(f"feature_{i}" for i in range(width)))


def replicates(width: int = 1280) -> Table:
    """12,082 wells of 1,571 perturbations."""
    table = wells(width, extra=22)
    group = pl.Series("Metadata_compound", (np.arange(len(table)) % 1571).astype(str))
    return table.with_metadata(table.metadata.with_columns(group))


# Ours


def our_metrics(count: int) -> Callable[[], Any]:
    """Precision, recall, precision@R, AP, mAP with p-values, enrichment at seven percentiles, hit@k."""
    table = compounds(count, 1280)
    return lambda: evaluator.judge(table, evaluator.Protocol(), name="benchmark")


def our_spherize(width: int) -> Callable[[], Any]:
    """Sphere 12,082 wells on their 3,264 controls."""
    table = wells(width, extra=22)
    return lambda: normalize.Spherize(reference=CONTROL).fit_transform(table)


def our_mad_robustize() -> Callable[[], Any]:
    """136 plates of 384 wells, each on its 24 controls."""
    table = wells(1280, treated=360)
    return lambda: normalize.MadRobustize(reference=CONTROL, by="Metadata_Plate").fit_transform(table)


def our_modz() -> Callable[[], Any]:
    """MODZ consensus of 12,082 wells to 1,571 perturbations."""
    table = replicates()
    return lambda: consensus.Consensus(by="Metadata_compound", method="modz").fit_transform(table)


# Peers


def cytominer_eval(count: int) -> Callable[[], Any]:
    """Its precision_recall, enrichment and hitk, as pandas operations on all ordered pairs."""
    import pandas as pd

    table = compounds(count, 1280)
    frame = pd.DataFrame(table.features)
    meta = table.metadata.to_pandas()

    def melt() -> Any:
        similarity = frame.transpose().corr().to_numpy()
        np.fill_diagonal(similarity, np.nan)
        melted = pd.DataFrame(similarity).stack().reset_index()
        melted.columns = ["pair_a", "pair_b", "similarity"]
        melted = melted.merge(meta.add_suffix("_a"), left_on="pair_a", right_index=True)
        melted = melted.merge(meta.add_suffix("_b"), left_on="pair_b", right_index=True)
        return melted.assign(
            replicate=melted["Metadata_moa_a"].astype(str) == melted["Metadata_moa_b"].astype(str)
        )

    def precision_recall() -> list:
        melted = melt()
        found = []
        for k in KS:
            for _, group in melted.groupby("Metadata_compound_a"):
                hits = group.sort_values("similarity", ascending=False)["replicate"]
                top = hits.iloc[:k].sum()
                found.append((top / k, top / max(hits.sum(), 1)))
        return found

    def enrichment() -> list:
        melted = melt()
        found = []
        for percentile in PERCENTILES:
            above = melted["similarity"] > melted["similarity"].quantile(percentile)
            counts = [
                [(above & melted["replicate"]).sum(), (above & ~melted["replicate"]).sum()],
                [(~above & melted["replicate"]).sum(), (~above & ~melted["replicate"]).sum()],
            ]
            found.append(scipy.stats.fisher_exact(counts, alternative="greater"))
        return found

    def hit_at_k() -> np.ndarray:
        melted = melt().sort_values(["pair_a", "similarity"], ascending=[True, False])
        ranks = melted.groupby("pair_a").cumcount()
        return np.bincount(ranks[melted["replicate"]], minlength=count)

    return lambda: (precision_recall(), enrichment(), hit_at_k())


def copairs(count: int) -> Callable[[], Any]:
    """copairs' average precision alone (no precision@K, enrichment, hit@k)."""
    from copairs import map as copairs_map

    table = compounds(count, 1280)
    meta = table.metadata.to_pandas()
    arguments = {
        "pos_sameby": ["Metadata_moa"],
        "pos_diffby": [],
        "neg_sameby": [],
        "neg_diffby": ["Metadata_moa"],
    }
    return lambda: copairs_map.average_precision(meta, table.features, **arguments, progress_bar=False)


def argsort(count: int) -> Callable[[], Any]:
    """NumPy: matrix product, argsort, AP, precision@K and R-precision from the sorted matches."""
    table = compounds(count, 1280)
    labels = table.metadata["Metadata_moa"].cast(int).to_numpy()

    def score() -> tuple:
        x = table.features - table.features.mean(1, keepdims=True)
        x /= np.linalg.norm(x, axis=1, keepdims=True)
        similarity = x @ x.T
        np.fill_diagonal(similarity, -np.inf)
        match = labels[np.argsort(-similarity, axis=1)[:, :-1]] == labels[:, None]
        precision = np.cumsum(match, axis=1) / np.arange(1, count)
        size = match.sum(1)
        return (
            (precision * match).sum(1) / np.maximum(size, 1),
            precision[:, KS],
            precision[np.arange(count), size - 1],
        )

    return score


def pycytominer_spherize(width: int) -> Callable[[], Any]:
    """pycytominer's Spherize (ZCA-cor), fitted on the 3,264 controls."""
    import pandas as pd
    from pycytominer.operations import Spherize

    table = wells(width, extra=22)
    features = pd.DataFrame(table.features, columns=list(table.feature_names))
    control = features[table.where(CONTROL)]
    return lambda: Spherize(method="ZCA-cor", epsilon=1e-6).fit(control).transform(features)


def pycytominer_mad_robustize() -> Callable[[], Any]:
    """pycytominer.normalize(method="mad_robustize"), plate by plate."""
    import pandas as pd
    from pycytominer import normalize as peer

    table = wells(1280, treated=360)
    frame = pd.concat(
        [table.metadata.to_pandas(), pd.DataFrame(table.features, columns=list(table.feature_names))], axis=1
    )
    plates = [plate for _, plate in frame.groupby("Metadata_Plate")]
    options = {"samples": "Metadata_compound == 'DMSO'", "method": "mad_robustize"}
    return lambda: [peer(plate, features=list(table.feature_names), **options) for plate in plates]


def pycytominer_modz() -> Callable[[], Any]:
    """pycytominer's MODZ consensus."""
    import pandas as pd
    from pycytominer.cyto_utils import modz

    table = replicates()
    names = list(table.feature_names)
    frame = pd.concat([table.metadata.to_pandas(), pd.DataFrame(table.features, columns=names)], axis=1)
    return lambda: modz(frame, ["Metadata_compound"], features=names)


PEER, NUMPY = "cytominer-eval's algorithm", "NumPy argsort (AP, P@K, P@R)"
MEASURES: dict[str, list[tuple[str, Callable, tuple]]] = {
    "all metrics, 1,144 x 1,280": [
        ("coos", our_metrics, (1144,)),
        (PEER, cytominer_eval, (1144,)),
        ("copairs (AP alone)", copairs, (1144,)),
        (NUMPY, argsort, (1144,)),
    ],
    "all metrics, 10,000 x 1,280": [("coos", our_metrics, (10_000,)), (NUMPY, argsort, (10_000,))],
    "spherize 12,082 x 1,280": [
        ("coos", our_spherize, (1280,)),
        ("pycytominer", pycytominer_spherize, (1280,)),
    ],
    "spherize 12,082 x 6,400": [
        ("coos", our_spherize, (6400,)),
        ("pycytominer", pycytominer_spherize, (6400,)),
    ],
    "mad_robustize, 136 plates x 384 x 1,280": [
        ("coos", our_mad_robustize, ()),
        ("pycytominer", pycytominer_mad_robustize, ()),
    ],
    "MODZ, 12,082 to 1,571 x 1,280": [("coos", our_modz, ()), ("pycytominer", pycytominer_modz, ())],
}


def time_it(make: Callable, arguments: tuple, rounds: int) -> Measured:
    """Run in this process: one first call, and `rounds` more unless the first took over 20 s."""
    warnings.simplefilter("ignore")  # the peers' about tomorrow's pandas
    logging.set_verbosity(logging.ERROR)
    work = make(*arguments)
    seconds: list[float] = []
    for number in range(1 + rounds):
        began = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - began)
        if number == 0 and seconds[0] > 20:
            break
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    return Measured(seconds[0], statistics.median(seconds[1:] or seconds), peak)


def measure(make: Callable, arguments: tuple, rounds: int) -> Measured | str:
    """`time_it` in a fresh process, or why it could not be run."""
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:
        try:
            return pool.apply(time_it, (make, arguments, rounds))
        except ImportError as error:
            return f"not installed: {error}"


def main(*, rounds: int, only: str = "") -> None:
    """Measure everything (or what has `only` in its title) and print it, each figure beside its peers."""
    for title, entries in MEASURES.items():
        if only not in title:
            continue
        print(title, flush=True)
        ours = 0.0
        for name, make, arguments in entries:
            found = measure(make, arguments, rounds)
            if isinstance(found, str):
                print(f"  {name:<30}{found}", flush=True)
                continue
            ratio = f"   {found.seconds / ours:8.1f} x {entries[0][0]}" if ours else ""
            ours = ours or found.seconds
            line = f"{found.seconds:9.3f} s   first call {found.first:7.2f} s   {found.gigabytes:5.2f} GB"
            print(f"  {name:<30}{line}{ratio}", flush=True)
