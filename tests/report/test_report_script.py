"""experiments/report.py: what it prints and how it ends."""

import pytest
from absl.testing import flagsaver
from report_runs import make_run
from run_scripts import loaded


@pytest.fixture(scope="module")
def script():
    """experiments/report.py as a module."""
    with loaded("report.py") as module:
        yield module


def test_script_writes_a_page_from_a_glob(script, tmp_path, capsys):
    make_run(tmp_path / "runs" / "raw_0")
    (tmp_path / "runs" / "notes").mkdir()
    out = tmp_path / "out"
    with flagsaver.flagsaver(workdirs=[f"{tmp_path}/runs/*"], out=str(out), images=False, num_resamples=5):
        script.main(["report"])
    printed = capsys.readouterr().out
    assert str(out / "index.html") in printed
    assert (out / "index.html").as_uri() in printed


@pytest.mark.parametrize(
    ("workdirs", "images", "message"),
    [
        (["nowhere_*"], False, "no work directory matches"),
        (["nowhere"], False, "no config.json"),
        ("run", True, "--noimages"),
    ],
)
def test_script_ends_with_one_line_on_mistakes(script, tmp_path, workdirs, images, message):
    make_run(tmp_path / "run", dataset={"directory": str(tmp_path / "moved")})
    workdirs = [str(tmp_path / "run")] if workdirs == "run" else workdirs
    with (
        flagsaver.flagsaver(workdirs=workdirs, out=str(tmp_path / "out"), images=images),
        pytest.raises(SystemExit, match=message),
    ):
        script.main(["report"])
