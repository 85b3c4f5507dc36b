"""BBBC021 (Ljosa et al. 2013)."""
