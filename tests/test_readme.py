"""The README's Python examples run, and the files it names exist."""

import pathlib
import re
import textwrap

README = pathlib.Path(__file__).resolve().parent.parent / "README.md"


def examples():
    """Code of the indented blocks that begin with an import, blank lines inside included."""
    blocks = re.split(r"\n(?=\S)", README.read_text())
    found = [re.search(r"(?:^|\n)( {4}import .*)", block, re.S) for block in blocks]
    return [textwrap.dedent(match[1]) for match in found if match]


def test_python_examples_run():
    network, profiles = (run(code) for code in sorted(examples(), key=lambda code: "retrieval" in code))
    assert network["output"]["logits"].shape == (4, 7)
    assert network["output"]["features"]["fc2"].shape == (4, 512)
    assert profiles["enriched"].table.sum() == 300 * 299 // 2
    assert profiles["defined"] == 300
    assert 0 < profiles["mean"] < 0.1  # random features: chance is 4 / 299


def run(code):
    names = {}
    exec(code, names)
    return names


def test_named_files_exist():
    text = README.read_text()
    named = re.findall(r"(?:experiments|configs)/[\w/]+\.py", text) + re.findall(r"\]\(([\w/.]+)\)", text)
    assert len(named) > 10
    for name in named:
        assert (README.parent / name).exists(), name
