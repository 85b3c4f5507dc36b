"""Data: raw readers, preprocessing, augmentation, input pipelines and simulated releases."""
