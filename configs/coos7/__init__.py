"""COOS-7 (Lu et al. 2019)."""
