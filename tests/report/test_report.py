"""The report's page and pictures: what a reader needs, and nothing fetched from elsewhere."""

import csv
import re
import types

import numpy as np
import pytest
from report_runs import has_label, images, make_run, predictions, write

from coos.report import montage, plots, summary, training


def test_page_is_self_contained(page):
    out, text = page
    resources = re.findall(r'(?:src|href)="([^"]*)"', text)
    assert resources
    assert all(r.startswith(("data:", "#section-")) for r in resources)
    assert "<script" not in text
    assert "@import" not in text
    assert "url(" not in text
    figures = sorted((out / "figures").glob("*.png"))
    assert len(figures) == text.count("<img ") == 1 + 6 + 2 + 2 + 1 + 4
    assert all(
        figure.read_bytes().startswith(b"\x89PNG") and figure.stat().st_size > 1000 for figure in figures
    )
    assert 'lang="en"' in text
    assert 'name="viewport"' in text
    assert all('alt=""' not in tag and "alt=" in tag for tag in re.findall("<img [^>]*>", text))


def test_page_says_what_the_reader_needs(page):
    text = page[1]
    for words in (
        "<h1>Title</h1>",
        "published: Lu et al. 2019, Table 3",
        "bootstrap over cells and over",
        "mean of 2 seeds",
        "The class of raw that suffers most is Early Endosome on test4",
        "go to Golgi",
        "A star marks the step that was kept",
        "gap +4.2",
        "protein in grey",
        "these are drawn for each run alone",
    ):
        assert words in text, words
    assert text.index("Model raw has") < text.index("Confusion matrices</h2>") < text.index("mistakes</h2>")


def test_ids_are_escaped(page):
    assert "&lt;b&gt;" in page[1]
    assert "<b>" not in page[1]


def test_simulated_label_on_page_and_pictures(page, tmp_path):
    run = make_run(tmp_path / "run", simulated=True)
    text = write(tmp_path / "out", [run], images=images)
    assert plots.SIMULATED_LABEL in text
    assert "NOT COMPARABLE" in text
    assert all(has_label(path) for path in (tmp_path / "out" / "figures").glob("*.png"))
    assert "SIMULATED" not in page[1]
    assert "NOT COMPARABLE" not in page[1]
    assert not any(has_label(path) for path in (page[0] / "figures").glob("*.png"))


def test_absent_class_is_undefined(tmp_path):
    run = make_run(tmp_path / "run", absent=1)
    text = write(tmp_path / "out", [run], images=None)
    assert "undefined<small>no examples of this class" in text
    assert "no examples of Golgi" in text
    assert ">nan<" not in text
    with open(tmp_path / "out" / "tables" / "classes.csv") as file:
        row = next(r for r in csv.DictReader(file) if (r["set"], r["class"]) == ("test4", "Golgi"))
    assert (row["sensitivity"], row["n"]) == ("nan", "0.0")
    assert "no examples" in row["note"]


def test_single_set_that_is_not_the_reference(tmp_path):
    run = make_run(tmp_path / "run", sets={"test4": 60}, report={"published": None})
    text = write(tmp_path / "out", [run])
    assert "The reference set test1 was not evaluated." in text
    assert "gap undefined: test1 not evaluated" in text
    assert "Not evaluated: validation, test1." in text
    assert "bootstrap over cells (" in text


def test_a_perfect_run_has_no_mistakes(tmp_path):
    run = make_run(tmp_path / "run")
    perfect = {
        n: p._replace(probabilities=np.eye(3, dtype=np.float32)[p.labels]) for n, p in run.predictions.items()
    }
    run.predictions.update(perfect)
    text = write(tmp_path / "out", [run], images=images)
    assert "raw, test4: no mistakes by the largest probability." in text
    assert "No confusion grew." in text
    assert "No class of raw is found less often" in text


def test_same_input_gives_the_same_page(tmp_path):
    run = make_run(tmp_path / "run")
    assert write(tmp_path / "a", [run], images=images) == write(tmp_path / "b", [run], images=images)


def test_images_of_another_data_set_are_refused(tmp_path):
    run = make_run(tmp_path / "run")

    def other(name):
        return types.SimpleNamespace(**{**vars(images(name)), "labels": 2 - images(name).labels})

    with pytest.raises(ValueError, match="evaluated data set"):
        write(tmp_path / "out", [run], images=other)
    with pytest.raises(ValueError, match="channels"):
        write(
            tmp_path / "out",
            [run],
            images=lambda n: types.SimpleNamespace(**{**vars(images(n)), "channels": ("x",)}),
        )


def test_pictures():
    ramp = np.arange(64, dtype=np.uint16).reshape(8, 8, 1)
    assert montage.stretch(ramp).min() == 0
    assert montage.stretch(ramp).max() == 1
    assert not montage.stretch(np.full((4, 4, 2), 7, np.uint16)).any()
    assert montage.colour(np.zeros((4, 4, 5)), channels="abcde").shape == (4, 4, 3)
    grey = montage.colour(ramp, channels=["dna"])
    assert np.array_equal(grey[..., 0], grey[..., 2])
    source = images("test1")
    subset = types.SimpleNamespace(**vars(source), rows=np.array([5, 9]))
    assert np.array_equal(
        montage.picture(subset, 1), montage.colour(source.images[9], channels=source.channels)
    )
    both = np.concatenate([ramp, ramp.transpose(1, 0, 2)], axis=-1)
    straight = montage.colour(both, channels=["protein", "nucleus"])
    swapped = montage.colour(both[..., ::-1], channels=["nucleus", "protein"])
    assert np.array_equal(straight, swapped)
    assert montage.describe_channels(["DNA", "ER"]) == "ER in grey, DNA in blue"


def test_worst_mistakes_are_the_surest():
    found = predictions("test4", 90, seed=1, lost=0.5)
    wrong = found.probabilities.argmax(-1) != found.labels
    listed = montage.mistakes([found], count=3)
    surest = np.sort(found.probabilities.max(-1)[wrong])[::-1][:3]
    assert [m["probability"] for m in listed] == pytest.approx(surest)
    assert all(m["true"] != m["predicted"] for m in listed)


def test_curves_and_best_step(seeds):
    steps, values = training.curve(seeds[0], "train", "loss")
    assert (list(steps), list(values)) == ([5, 10, 20], [0.2, 0.1, 0.05])
    assert training.best_step(seeds[0]) == 10
    assert len(training.curve(seeds[0], "test1", "loss")[0]) == 0


def test_runs_that_are_not_only_seeds_apart_are_reported(tmp_path):
    runs = [make_run(tmp_path / "a"), make_run(tmp_path / "b", seed=1)]
    runs[1].config["steps"] = 40
    assert "The runs of raw differ in more than the seed: steps." in write(tmp_path / "out", runs)


def test_summary_names_no_clear_change():
    row = {"set": "test2", "balanced_error": 0.02, "gap": 0.001, "gap_low": -0.01, "gap_high": 0.01}
    assert summary._loss(row).endswith("no clear change)")
    assert "no clear" not in summary._loss(row | {"gap_low": 0.0005})
