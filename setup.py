"""Packaging of coos: `pip install -e .[test]`; exact tested versions are in constraints.txt."""

import pathlib
import re

from setuptools import find_packages, setup

HERE = pathlib.Path(__file__).parent
VERSION = re.search(r'__version__ = "(.+?)"', (HERE / "coos" / "__init__.py").read_text())[1]

TEST = [
    "pytest>=8,<10",
    "pytest-timeout>=2.3,<3",
    "pytest-xdist>=3.6,<4",
    # oracles of the tests alone
    "copairs>=0.5.2,<0.6",
    "keras>=3.12,<4",  # on its JAX backend
    "mahotas>=1.4.18,<2",
    "pycytominer>=1.7.1,<2",  # 1.3.0 to 1.7.0 sphere wrongly
]
ANNDATA = ["anndata>=0.11,<0.13"]  # coos.profiles.files.write_anndata
CHEMISTRY = ["rdkit>=2025.3"]  # InChIKeys and scaffolds of SMILES: coos.data.chemistry

setup(
    name="coos",
    version=VERSION,
    description="Representation learning for fluorescence microscopy in JAX and Flax",
    long_description=(HERE / "README.md").read_text(),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11",
    packages=find_packages(include=["coos*", "configs*", "tfds_builders*"]),
    package_data={"": ["*.md", "*.bib", "*.txt"]},
    install_requires=[
        "absl-py>=2,<3",
        "array_record>=0.8,<0.9",
        "flax>=0.12,<0.13",
        "grain>=0.2.18,<0.3",
        "h5py>=3.11,<4",
        "importlib_resources>=6",  # tensorflow-datasets needs it and does not say so
        "jax>=0.10,<0.13",
        "matplotlib>=3.9,<4",
        "ml-collections>=1.1,<2",
        "ml_dtypes>=0.5,<1",
        "numpy>=2,<3",
        "optax>=0.2.8,<0.3",
        "orbax-checkpoint>=0.12,<1",  # 1.0 takes another interface under the same name
        "pillow>=11",
        "polars>=1.20,<3",
        "pyarrow>=18",
        "safetensors>=0.5,<1",
        "scikit-learn>=1.6,<2",
        "scipy>=1.14,<2",
        "tensorboardX>=2.6,<3",
        "tensorflow-datasets>=4.9.10,<5",
        "threadpoolctl>=3.5,<4",
        "tifffile>=2025.1",
        "tqdm>=4.66,<5",
    ],
    extras_require={
        "anndata": ANNDATA,
        "chemistry": CHEMISTRY,
        "test": [*TEST, *ANNDATA, *CHEMISTRY],
        "dev": [*TEST, *ANNDATA, *CHEMISTRY, "ruff>=0.14,<1", "mypy>=1.18,<3"],
        "bench": ["torch==2.13.0"],  # the peer of experiments/benchmark.py models
        "cuda": ["jax[cuda13]>=0.10,<0.13"],
        "tpu": ["jax[tpu]>=0.10,<0.13"],
    },
)
