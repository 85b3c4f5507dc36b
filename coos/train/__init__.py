"""Training: state, pmap'd steps, checkpoints and one loop that knows no task."""
