"""TFDS builders, one folder per dataset: ArrayRecord, no TensorFlow."""
