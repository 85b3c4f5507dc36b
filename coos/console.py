"""What scripts share in a terminal: flags with plain errors, and log lines that do not garble progress bars."""

import logging as python_logging
import pathlib
import sys
from collections.abc import Sequence

from absl import app, logging
from tqdm import tqdm

HERE = str(pathlib.Path(__file__).resolve().parent.parent)


class _BarHandler(python_logging.Handler):
    """Writes records above the progress bar; of other packages only warnings and errors."""

    def emit(self, record: python_logging.LogRecord) -> None:
        ours = record.pathname.startswith(HERE) and "site-packages" not in record.pathname
        if ours or record.levelno >= python_logging.WARNING:
            tqdm.write(self.format(record))


def setup() -> None:
    """Send absl's log through tqdm; a second call changes nothing."""
    handler = _BarHandler()
    handler.setFormatter(python_logging.Formatter("%(asctime)s %(levelname).1s %(message)s", "%H:%M:%S"))
    logging.use_absl_handler()
    logger = logging.get_absl_logger()
    root = python_logging.getLogger()
    for owner in (logger, root):
        owner.handlers = [h for h in owner.handlers if not isinstance(h, (logging.ABSLHandler, _BarHandler))]
    root.addHandler(handler)
    logging.set_verbosity(logging.INFO)


def parse_flags(arguments: Sequence[str]) -> list[str]:
    """Flags of a script, for `app.run`; a setting that its config does not have ends the script with one line."""
    try:
        return app.parse_flags_with_usage(list(arguments))
    except AttributeError as error:
        if not (error.args and isinstance(error.args[0], KeyError)):  # what ml_collections raises
            raise
        said = str(error.args[0].args[0]).replace("\n", ". ")
        sys.exit(f"{pathlib.Path(arguments[0]).name}: the file of --config has no setting {said}")
