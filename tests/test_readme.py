"""The README's Python examples run, its network can be used, and the files it names exist."""

import importlib
import pathlib
import re
import sys
import textwrap

import jax
import jax.numpy as jnp
import pytest

from coos import models
from coos.models.summary import count

README = pathlib.Path(__file__).resolve().parent.parent / "README.md"


def examples():
    """Code of the indented blocks that begin with an import, blank lines inside included."""
    blocks = re.split(r"\n(?=\S)", README.read_text())
    blocks = [block for block in blocks if "# coos/models/" not in block]
    found = [re.search(r"(?:^|\n)( {4}import .*)", block, re.S) for block in blocks]
    return [textwrap.dedent(match[1]) for match in found if match]


@pytest.fixture
def tinynet(tmp_path, monkeypatch):
    """The README's own network, in a folder that `coos.models` searches too."""
    block = re.search(r"\n( {4}# coos/models/tinynet.py\n.*?)\n(?=\S)", README.read_text(), re.S)
    (tmp_path / "tinynet.py").write_text(textwrap.dedent(block[1]))
    monkeypatch.setattr(models, "__path__", [*models.__path__, str(tmp_path)])
    yield importlib.import_module("coos.models.tinynet")
    del sys.modules["coos.models.tinynet"], models.tinynet


def test_own_network_in_one_file(tinynet):
    assert "tinynet" in models.available()
    module = models.create("tinynet", num_outputs=7, dtype=jnp.bfloat16)
    images = jnp.ones((4, *tinynet.PUBLISHED.input_shape))
    variables = module.init(jax.random.PRNGKey(0), images)
    assert count(variables["params"]) == tinynet.PUBLISHED.parameters
    output, updates = module.apply(variables, images, train=True, mutable=["batch_stats"])
    assert output["logits"].shape == (4, 7)
    assert output["logits"].dtype == jnp.float32
    assert output["features"]["conv1"].shape == (4, 32, 32, 16)
    assert "norm1" in updates["batch_stats"]
    with pytest.raises(ValueError, match=r"model 'tinynet' has no option 'depth'; it has \['width'"):
        models.create("tinynet", num_outputs=7, depth=3)


def test_python_examples_run():
    assays, potency, profiles, network = (run(code) for code in examples())
    assert int(potency["found"].verdict) == 1
    assert 10 ** float(potency["found"].log10_ec50) == pytest.approx(2.8e-8, rel=0.02)
    assert assays["scores"].shape == (300, 20)
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
