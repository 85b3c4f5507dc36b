"""Run configurations: configs/<study>/<run>.py, each a get_config()."""
