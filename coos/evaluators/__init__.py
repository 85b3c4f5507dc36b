"""Evaluators judge a model, or its predictions, under a protocol and yield result rows."""
