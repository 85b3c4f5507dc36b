"""Training from imported weights: they are where they belong, and what does not fit is said."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from run_scripts import call_script

from coos import models
from coos import workdir as work
from coos.data import preprocess
from coos.models import pretrained
from coos.train import weights
from coos.train.state import TrainState

OPTIONS = {"width": 2, "stage_sizes": (1,)}


def network(outputs=3, channels=2, **options):
    """A narrow, shallow ResNet and a state with ones for parameters."""
    module = models.create("resnet50", num_outputs=outputs, **{**OPTIONS, **options})
    shapes = jax.eval_shape(lambda: module.init(jax.random.PRNGKey(0), jnp.ones((1, 8, 8, channels))))
    variables = jax.tree.map(lambda x: np.ones(x.shape, np.float32), shapes)
    return module, TrainState(0, variables["params"], variables["batch_stats"], (), jax.random.PRNGKey(0))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Imported weights: every value 0.5."""
    module, state = network()
    halves = jax.tree.map(lambda x: x / 2, {"params": state.params, "batch_stats": state.batch_stats})
    scaling = pretrained.for_channels(pretrained.SCALINGS["caffe"], 2)
    place = tmp_path_factory.mktemp("weights") / "resnet50"
    weights.save(
        place, "resnet50", pretrained.Imported(module, halves, scaling, dict(OPTIONS), [], place / "a.h5")
    )
    return place


def test_a_training_starts_from_them_with_a_new_head(folder):
    module, state = network(outputs=5)
    begun = weights.begin(state, module, folder)
    assert (begun.params["conv2_1"]["conv2"]["kernel"] == 0.5).all()
    assert (begun.batch_stats["bn1"]["var"] == 0.5).all()
    assert begun.params["logits"]["kernel"].shape == (8, 5)
    assert (begun.params["logits"]["kernel"] == 1).all()
    module, state = network()
    assert (weights.begin(state, module, folder).params["logits"]["kernel"] == 0.5).all()


def test_what_does_not_fit(folder, tmp_path):
    wanted = "holds weights for 2 channels, the images have 5; import them with --channels=5"
    with pytest.raises(ValueError, match=wanted):
        weights.check_fit(network()[0], 5, folder)
    with pytest.raises(ValueError, match=r"these weights need model.width=2, not 4"):
        weights.check_fit(network(width=4)[0], 2, folder)
    with pytest.raises(ValueError, match="holds weights of resnet50, not of AlexNet"):
        weights.check_fit(models.create("alexnet", num_outputs=3), 2, folder)
    with pytest.raises(
        ValueError,
        match=r"no weights.json, which experiments/import_weights.py writes, nor config.json of a run",
    ):
        weights.check_fit(network()[0], 2, tmp_path)
    module, state = network(channels=5)
    with pytest.raises(
        ValueError, match=r"conv1/kernel has shape \(7, 7, 2, 2\), the network needs \(7, 7, 5, 2\)"
    ):
        weights.begin(state, module, folder)
    with pytest.raises(ValueError, match="is not an empty folder"):
        weights.check_empty(folder)


CONFIG = """
from configs.cell_folder import transfer

def get_config():
    config = transfer.get_config("resnet50")
    config.model.update({"width": 2, "stage_sizes": (1,)})
    config.data.train_split = "training"
    config.evaluation.sets = ("training",)
    config.num_steps = config.evaluate_every = config.checkpoint_every = 4
    return config
"""


def test_train_script_starts_from_them(folder, dataset, tmp_path):
    (tmp_path / "config.py").write_text(CONFIG)
    arguments = [f"--config={tmp_path / 'config.py'}", f"--config.data.directory={dataset}"]
    arguments += ["--config.preprocess.intensity=pretrained", "--config.batch_size=8"]
    start = f"--config.start_from={folder}"
    done = call_script("train.py", *arguments, start, f"--workdir={tmp_path / 'run'}")
    assert done.returncode == 0, done.stderr
    assert f"starting from the weights in {folder}" in done.stdout
    assert "a new head of 7 outputs" in done.stdout
    constants = work.read_json(tmp_path / "run" / "config.json")["constants"]
    assert constants == {"mean": [123.68, 116.779], "std": [1.0, 1.0]}
    # Resuming needs the weights no more, and keeps the scaling that the run began with.
    again = call_script("train.py", *arguments, "--config.start_from=gone", f"--workdir={tmp_path / 'run'}")
    assert again.returncode == 0, again.stderr
    assert work.read_json(tmp_path / "run" / "config.json")["constants"] == constants
    refused = call_script("train.py", *arguments, f"--workdir={tmp_path / 'other'}")
    assert "'pretrained' is the scaling of imported weights: set start_from" in refused.stderr


def test_their_input_scaling():
    image = np.random.default_rng(0).integers(0, 4096, (9, 9, 2)).astype(np.uint16)
    scale = preprocess.intensity_function("pretrained", mean=[123.68, 116.779], std=[1.0, 2.0])
    low, high = image.min((0, 1)).astype(float), image.max((0, 1))
    expected = (255 * (image - low) / (high - low) - np.array([123.68, 116.779])) / np.array([1.0, 2.0])
    np.testing.assert_allclose(scale(image), expected, rtol=1e-4, atol=1e-3)
