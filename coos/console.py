"""Log lines that do not garble progress bars, and only ours."""

import logging as python_logging
import pathlib

from absl import logging
from tqdm import tqdm

HERE = str(pathlib.Path(__file__).resolve().parent.parent)


class _BarHandler(python_logging.Handler):
    """Writes records above the progress bar; of other packages only warnings and errors."""

    def emit(self, record: python_logging.LogRecord) -> None:
        ours = record.pathname.startswith(HERE) and "site-packages" not in record.pathname
        if ours or record.levelno >= python_logging.WARNING:
            tqdm.write(self.format(record))


def setup() -> None:
    """Send absl's log through tqdm."""
    handler = _BarHandler()
    handler.setFormatter(python_logging.Formatter("%(asctime)s %(levelname).1s %(message)s", "%H:%M:%S"))
    logging.use_absl_handler()
    logger = logging.get_absl_logger()
    root = python_logging.getLogger()
    for owner in (logger, root):
        owner.handlers = [h for h in owner.handlers if not isinstance(h, logging.ABSLHandler)]
    root.addHandler(handler)
    logging.set_verbosity(logging.INFO)
