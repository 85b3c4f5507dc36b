"""Log lines of scripts."""

from absl import logging

from coos import console


def test_a_line_is_written_once_however_often_the_log_is_set_up(capsys):
    console.setup()
    console.setup()
    logging.info("one line")
    assert capsys.readouterr().out.count("one line") == 1
