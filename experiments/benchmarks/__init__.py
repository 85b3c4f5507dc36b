"""What experiments/benchmark.py measures."""
