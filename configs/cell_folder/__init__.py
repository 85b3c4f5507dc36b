"""Own cells, built by the cell_folder builder."""
