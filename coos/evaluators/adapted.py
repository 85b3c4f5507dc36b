"""Judge a trained classifier with batch-norm statistics of the images it judges, see `coos.train.adaptation`."""

import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from coos import workdir as work
from coos.data import groups, pipeline
from coos.data.source import Source
from coos.evaluators import classification
from coos.extract.representations import digest
from coos.train import adaptation, run
from coos.train.predict import predict
from coos.workdir import Predictions

WHOLE_SET = "set"
FEWEST = 8  # images that statistics are measured on


def evaluate(
    workdir: pathlib.Path, out: pathlib.Path, *, by: str = WHOLE_SET, name: str = "", sets: Sequence[str] = ()
) -> list[dict[str, Any]]:
    """Predict and score sets with the best step of a run, adapted to each set or group; write them to `out` as a run.

    What is there already is not made again.

    Args:
        workdir: of a run of task "classification".
        out: folder of the run that results; its configuration is called `name`, or as the first with "+ <by>".
        by: "set", or what groups a set's images: "plate", "well" or "id:PATTERN" (`coos.data.groups`). Each group needs
            8 images (below about 32 statistics are noisy); classes must be mixed in it as in training.
        sets: which; by default those of the config.

    Raises:
        ValueError: another task, no batch norm, a group of too few images, or an `out` of another recipe.
    """
    learner, variables, record = run.load_best(workdir)
    config = learner.config
    sets = tuple(sets or config.evaluation.sets)
    recipe = work.plain({"variables": digest(variables), "by": by})
    if _is_done(out, recipe, sets):
        return [row for row in work.read_rows(out / "results.jsonl") if row["split"] in sets]
    if config.task != "classification":
        raise ValueError(f"{workdir}: its task is {config.task!r}; statistics are adapted in classifications")
    compiled, step = run.make_predict(learner, validating=False), record["best"]["step"]
    label = name or f"{config.run} + statistics of the {by}"
    rows = []
    for set_name in sets:
        source = run.task_of(config).load_set(config, config.data.directory, set_name)
        found = _predict(learner, variables, source, compiled, by=by, where=set_name)
        work.save_predictions(out, set_name, found, step=step)
        values = classification.score(found, class_names=source.class_names)
        labels = {**run.row_labels(config, source.dataset), "run": label, "fold": None, "step": step}
        rows += [
            {**labels, "split": set_name, "metric": k, "value": v, "n": len(source)}
            for k, v in values.items()
        ]
    work.replace_rows(out / "results.jsonl", rows)
    known = work.read_json(workdir / "config.json")
    known["config"] |= {"run": label, "statistics": by}
    work.write_json(out / "config.json", {**known, "adapted": recipe})  # the last: without it nothing is done
    return rows


def _is_done(out: pathlib.Path, recipe: dict[str, Any], sets: Sequence[str]) -> bool:
    """Whether `out` holds what the recipe makes of all sets; ValueError if it is of another network or grouping."""
    if not (out / "config.json").exists():
        return False
    before = work.read_json(out / "config.json").get("adapted", {})
    different = [name for name in recipe if before.get(name) != recipe[name]]
    if different:
        raise ValueError(f"{out}: was made with other {', '.join(different)}; remove the folder")
    return all((out / "predictions" / f"{name}.npz").exists() for name in sets)


def _predict(
    learner: Any, variables: Any, source: Source, compiled: Any, *, by: str, where: str
) -> Predictions:
    """Predictions of a source, each group with statistics of its own, in the order of the source."""
    group = np.zeros(len(source), np.int32) if by == WHOLE_SET else groups.groups(source, by)
    probabilities = np.empty((len(source), len(source.class_names)), np.float32)
    size = learner.config.evaluation.batch_size
    for number in np.unique(group):
        members = np.flatnonzero(group == number)
        part = source.subset(members)
        if len(part) < FEWEST:
            raise ValueError(
                f"set {where}: a group by {by!r} has {len(part)} images, such as {str(part.ids[0])!r}; statistics "
                f"need {FEWEST}"
            )
        own = adaptation.adapted(learner, variables, part, batch_size=size)
        probabilities[members] = predict(
            compiled, pipeline.replicate(own), part, batch_size=size
        ).probabilities
    return Predictions(source.ids, source.labels, probabilities, source.columns)
