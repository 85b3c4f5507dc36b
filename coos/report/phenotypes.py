"""One page about networks that tell phenotypes apart: accuracies, confusions, response curves, fields, kernel maps."""

import pathlib
from collections.abc import Collection, Mapping
from typing import Any

import ml_collections
import numpy as np

from coos import concentrations
from coos import workdir as work
from coos.data.source import Source
from coos.evaluators import kernel_maps, phenotypes, responses
from coos.evaluators.phenotypes import Scores, Trained
from coos.evaluators.spread import Spread
from coos.profiles.table import listing
from coos.report import html, montage, phenotype_plots, plots, response_curves
from coos.report.folder import Folder
from coos.train import run
from coos.train.phenotypes import Study

NONE = "too few divisions"
NO_FOLDS = "One network was trained on all labelled fields; nothing was held out."
SHOWN_FIELDS, SHOWN_MISTAKES, SHOWN_KERNELS, CROP = 4, 15, 5, 320
NOTE = (
    "A division's accuracy is the share of its held-out fields that are called what they are. Divisions share "
    "fields: the deviation says how much one division varies, not how sure the mean is. The deviation is the "
    "sample's; MAD is the median absolute deviation, not scaled."
)
SOFT_NOTE = (
    "A network that was trained on all labelled fields looks at all wells. Wells of the lowest and highest doses and "
    "controls are among those it was trained on. Dots are wells, larger points medians over replicates with their "
    "median absolute deviation; the line is a four-parameter logistic through all wells, the band the 95 % interval "
    "of EC50. It is where the network changes its mind: a network that switches between two extremes makes a steep "
    "curve of a gentle one, and the interval covers the scatter of the wells alone."
)


def check(config: ml_collections.ConfigDict, network: str, study: Study, layers: Collection[str]) -> None:
    """Refuse what the page could not show, before anything is trained. Raises ValueError naming the field.

    `layers` are those that the network has.
    """
    phenotype, names = config.response.phenotype, study.source.class_names
    if phenotype and phenotype not in names:
        raise ValueError(f"response.phenotype={phenotype!r}: the classes are {', '.join(names)}")
    if (phenotype or config.response.treatments) and not config.soft:
        raise ValueError("response needs soft=True: a network that looks at all fields")
    known = set(study.table["Metadata_compound"].drop_nulls())
    unknown = [name for name in config.response.treatments if name not in known]
    if unknown:
        raise ValueError(f"response.treatments: no {unknown[0]!r}; there are {listing(sorted(known), 20)}")
    for layer in config.report.layers.get(network, ()):
        if layer not in layers:
            raise ValueError(
                f"report.layers.{network}: no layer {layer!r}; the network has {listing(sorted(layers), 40)}"
            )


def write(
    workdir: pathlib.Path, config: ml_collections.ConfigDict, trained: Mapping[str, Trained]
) -> pathlib.Path:
    """Write index.html with its figures, tables as CSV and results.jsonl; returns where the page is."""
    first = next(iter(trained.values()))
    source, simulated = first.study.source, bool(first.study.source.dataset["simulated"])
    number = len(source.class_names)
    folder, found = (
        Folder(workdir),
        {network: phenotypes.scores(one.folds, number) for network, one in trained.items()},
    )
    judged = {network: scores for network, scores in found.items() if scores.values["accuracy"]}
    curves = soft(folder, config, trained, simulated=simulated) if config.response.phenotype else ""
    curves += all_classes(folder, config, trained, simulated=simulated) if config.response.treatments else ""
    sections = [
        ("Accuracy", accuracies(folder, config, trained, judged, simulated=simulated) if judged else ""),
        ("Which class goes where", confusions(folder, judged, source, simulated=simulated) if judged else ""),
        ("Concentration and response", curves),
        ("Fields, and what kernels see", pictures(folder, config, trained, simulated=simulated)),
        ("Fields called wrong", mistakes(folder, trained) if judged else ""),
        ("How", html.preformatted(config.to_json(indent=1))),
    ]
    rows = [row for network, one in trained.items() for row in result_rows(one, network, found[network])]
    (workdir / "results.jsonl").unlink(missing_ok=True)
    work.append_rows(workdir / "results.jsonl", rows)
    text = html.page(
        config.report.title or config.run,
        lead=html.paragraph(summary(judged, config) if judged else NO_FOLDS, css="summary"),
        sections=[section for section in sections if section[1]],
        banner=plots.SIMULATED_LABEL if simulated else "",
    )
    return folder.page(text)


def result_rows(one: Trained, network: str, found: Scores) -> list[dict[str, Any]]:
    """Rows of results.jsonl of one network."""
    labels = {
        **run.row_labels(one.config, one.study.source.dataset),
        "split": network,
        "step": None,
        "n": None,
    }
    return phenotypes.result_rows(found, labels)


def summary(found: Mapping[str, Scores], config: ml_collections.ConfigDict) -> str:
    """Medians and deviations in a sentence."""
    parts = []
    for network, scores in found.items():
        over = scores.spreads["accuracy"]
        known = config.report.published.get(network)
        beside = f" (published {known[0]:g} ({known[1]:g}))" if known else ""
        spread = f" ({100 * over.sd:.0f})" if np.isfinite(over.sd) else ""
        parts.append(f"{network} {100 * over.median:.0f}{spread}{beside}")
    number = max(scores.spreads["accuracy"].counted for scores in found.values())
    divisions = "one division" if number == 1 else f"{number} divisions"
    return f"Median accuracy (standard deviation) over {divisions}, in percent: {'; '.join(parts)}."


def accuracies(
    folder: Folder,
    config: ml_collections.ConfigDict,
    trained: Mapping[str, Trained],
    found: Mapping[str, Scores],
    *,
    simulated: bool,
) -> str:
    """Table 1 and Supplementary-Table-6 style statistics beside the published ones, and a dot for every division."""
    published = config.report.published
    names = (
        "network",
        "parameters",
        "divisions",
        "mean",
        "SD",
        "median",
        "MAD",
        "balanced, mean",
        "training loss",
    )
    head = html.head([*names, "published, median (SD)"])
    rows, lines = [], []
    for network, scores in found.items():
        over, loss = scores.spreads["accuracy"], list(trained[network].training_loss.values())
        known = published.get(network)
        rows.append(
            (
                "",
                [
                    html.escape(network),
                    f"{trained[network].parameters:,}",
                    str(over.counted),
                    *(html.percent(getattr(over, name), reason=NONE) for name in Spread._fields[:4]),
                    html.percent(scores.spreads["balanced_accuracy"].mean, reason=NONE),
                    f"{np.mean(loss):.3f}" if loss else "",
                    f"{known[0]:g} ({known[1]:g})" if known else "",
                ],
            )
        )
        lines.append({"network": network, "parameters": trained[network].parameters, **over._asdict()})
    folder.csv("accuracies", lines, ("network", "parameters", *Spread._fields))
    figure = phenotype_plots.accuracy_plot(found, published, simulated=simulated)
    caption = "Every dot is one division."
    shown = folder.figure("accuracies", figure, alt="Accuracy of every division", caption=caption)
    note = f"{NOTE} Published: {config.report.published_source}." if published else NOTE
    return html.table(head, rows, caption="Accuracy in %") + html.paragraph(note) + shown


def confusions(folder: Folder, found: Mapping[str, Scores], source: Source, *, simulated: bool) -> str:
    """The confusion matrices of all divisions together, and as CSV."""
    shown = []
    for network, scores in found.items():
        lines = [
            {
                "true": source.class_names[t],
                "called": source.class_names[p],
                "count": int(scores.confusion[t, p]),
            }
            for t in range(len(source.class_names))
            for p in range(len(source.class_names))
        ]
        folder.csv(f"confusion_{network}", lines, ("true", "called", "count"))
        figure = plots.confusion_plot(
            scores.confusion, source.class_names, title=network, simulated=simulated
        )
        caption = f"{network}: held-out fields of all divisions; rows are true classes."
        shown.append(
            folder.figure(f"confusion_{network}", figure, alt=f"Confusions of {network}", caption=caption)
        )
    return html.grid(shown)


def soft(
    folder: Folder, config: ml_collections.ConfigDict, trained: Mapping[str, Trained], *, simulated: bool
) -> str:
    """Curves and EC50 of every network."""
    parts, lines = [html.paragraph(SOFT_NOTE)], []
    for network, one in trained.items():
        section, described = curves(folder, network, one, config.response.phenotype, simulated=simulated)
        parts.append(section)
        lines += [{"network": network, **line} for line in described]
    folder.csv("ec50", lines, tuple(lines[0]))
    return "".join(parts) + ec50_table(lines)


def curves(
    folder: Folder, network: str, one: Trained, phenotype: str, *, simulated: bool
) -> tuple[str, list[dict[str, Any]]]:
    """The figure of one network's curves, and what the table says of them."""
    names, everything = one.study.source.class_names, one.everything
    assert everything is not None, "`check` has seen to that"
    wells, probabilities = responses.of_wells(one.study.table, everything)
    found = responses.treatments(wells, probabilities)
    place = names.index(phenotype)
    fits = responses.fit(found, place)
    rows = wells.with_columns(**{f"p_{name}": probabilities[:, k] for k, name in enumerate(names)})
    folder.csv(f"responses_{network}", rows.to_dicts(), tuple(rows.columns))
    drawn = [
        response_curves.Curve(r.name, r.concentrations, r.responses[:, place], fit)
        for r, fit in zip(found, fits, strict=True)
    ]
    label = f"probability of {phenotype!r}"
    figure = response_curves.response_plot(
        drawn, unit=found[0].unit, response=label, title=network, simulated=simulated
    )
    caption = f"{network}: {label} against the {'concentration' if found[0].unit == 'M' else 'dose step'}."
    shown = folder.figure(f"curves_{network}", figure, alt=f"Response curves of {network}", caption=caption)
    return shown, [responses.describe(r, fit) for r, fit in zip(found, fits, strict=True)]


def all_classes(
    folder: Folder, config: ml_collections.ConfigDict, trained: Mapping[str, Trained], *, simulated: bool
) -> str:
    """The probabilities of all classes against the concentration, for the treatments of the config (Figure 5b)."""
    parts = []
    for network, one in trained.items():
        assert one.everything is not None, "`check` has seen to that"
        found = responses.treatments(*responses.of_wells(one.study.table, one.everything))
        drawn = [
            response_curves.Curve(r.name, r.concentrations, r.responses)
            for name in config.response.treatments
            for r in found
            if r.name == name or r.name.startswith(f"{name}, ")  # of every cell line
        ]
        names = one.study.source.class_names
        figure = response_curves.class_response_plot(
            drawn, names, unit=found[0].unit, title=network, simulated=simulated
        )
        caption = f"{network}: medians over wells of the probability of every class, with their MAD."
        alt = f"Probabilities of all classes, {network}"
        parts.append(folder.figure(f"classes_{network}", figure, alt=alt, caption=caption))
    return "".join(parts)


def ec50_table(lines: list[dict[str, Any]]) -> str:
    """EC50 with interval and verdict of every treatment and network."""

    def shown(line: dict[str, Any], name: str) -> str:
        value = line[name]
        if np.isinf(value):
            return "not bounded"
        return html.escape(concentrations.format_concentration(value, unit=line["unit"]))

    rows = [
        (
            "",
            [
                html.escape(line["network"]),
                html.escape(line["treatment"]),
                html.escape(line["verdict"]),
                shown(line, "ec50"),
                f"{shown(line, 'ec50_low')} to {shown(line, 'ec50_high')}",
                html.number(line["hill"], reason="no curve", digits=2),
                html.number(line["r_squared"], reason="no curve", digits=2),
                str(line["wells"]),
            ],
        )
        for line in lines
    ]
    head = html.head(
        ["network", "treatment", "verdict", "EC50", "95 % interval", "slope", "R²", "wells"], text_columns=3
    )
    return html.table(head, rows, caption="Potency", text_columns=3)


def pictures(
    folder: Folder, config: ml_collections.ConfigDict, trained: Mapping[str, Trained], *, simulated: bool
) -> str:
    """Example fields of every class, and maps of the layers that `config.report.layers` names."""
    first = next(iter(trained.values())).study.source
    figure = phenotype_plots.fields_plot(first, number=SHOWN_FIELDS, simulated=simulated)
    colours = montage.describe_channels(first.channels)
    caption = f"Fields of every class, channels stretched one by one: {colours}."
    shown = [folder.figure("fields", figure, alt="Example fields", caption=caption)]
    for network, layers in config.report.layers.items():
        if network in trained and trained[network].everything is not None:
            for layer in layers:
                shown.append(kernels(folder, trained[network], network, layer, simulated=simulated))
    return "".join(shown)


def kernels(folder: Folder, one: Trained, network: str, layer: str, *, simulated: bool) -> str:
    """Two fields of every class beside the maps of the kernels that differ most between classes."""
    labels = one.study.source.labels
    several = np.concatenate(
        [np.flatnonzero(labels == k)[:8] for k in range(len(one.study.source.class_names))]
    )
    found = kernel_maps.of_layer(one, layer, fields=several, number=SHOWN_KERNELS)
    keep = np.concatenate([np.flatnonzero(labels[several] == k)[:2] for k in np.unique(labels[several])])
    found = found._replace(fields=several[keep], maps=found.maps[keep])
    crop = min(CROP, *one.study.source.images.shape[1:3])
    figure = phenotype_plots.maps_plot(one.study.source, found, crop=crop, simulated=simulated)
    caption = (
        f"{network}, {layer}: maps after ReLU of the kernels that differ most between classes, trained on all "
        f"labelled fields; the upper left {crop} pixels. What a kernel stands for remains open (Godinez et al. 2017, "
        "section 3.1)."
    )
    return folder.figure(f"kernels_{network}_{layer}", figure, alt=f"Kernel maps of {layer}", caption=caption)


def mistakes(folder: Folder, trained: Mapping[str, Trained]) -> str:
    """Which fields are often called wrong when they are held out."""
    parts = []
    for network, one in trained.items():
        wrong = phenotypes.often_wrong(one.folds)
        lines = [{"field": name, "wrong": missed, "tested": tested} for name, missed, tested in wrong]
        folder.csv(f"mistakes_{network}", lines, ("field", "wrong", "tested"))
        rows = [
            ("", [html.escape(name), f"{missed} of {tested}"])
            for name, missed, tested in wrong[:SHOWN_MISTAKES]
        ]
        caption = f"{network}: {len(wrong)} fields were called wrong at least once"
        table = html.table(html.head(["field", "times wrong when held out"]), rows, caption=caption)
        parts.append(table if rows else html.paragraph(f"{network}: none."))
    return html.grid(parts)
