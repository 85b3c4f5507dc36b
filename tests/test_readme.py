"""The README's Python example runs, and the files it names exist."""

import pathlib
import re

README = pathlib.Path(__file__).resolve().parent.parent / "README.md"


def test_python_example_runs():
    lines = README.read_text().splitlines()
    start = lines.index("    import coos.models, jax, jax.numpy as jnp")
    code = "\n".join(line[4:] for line in lines[start : start + 6])
    names = {}
    exec(code, names)
    assert names["output"]["logits"].shape == (4, 7)
    assert names["output"]["features"]["fc2"].shape == (4, 512)


def test_named_files_exist():
    text = README.read_text()
    named = re.findall(r"(?:experiments|configs)/[\w/]+\.py", text) + re.findall(r"\]\(([\w/.]+)\)", text)
    assert len(named) > 10
    for name in named:
        assert (README.parent / name).exists(), name
