"""From fields of view and a network to tables of profiles: every cell through the network, every well one row.

    found = representations.of_run("runs/x", layer="pool5")
    run.extract(plate_files.find("release"), found, run.Options(out="features/x"))

`representations` says what is computed of a cell, `fields` reads images ahead, `stream` runs the network over all local
devices, `output` keeps what is finished, so that a killed run goes on, and `run` puts them together.
"""
