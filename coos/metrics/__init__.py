"""Metrics in pure JAX: arrays in, arrays out, masked; undefined values are NaN."""
