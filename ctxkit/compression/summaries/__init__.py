"""Summaries: by a model, and by the sentences nearest to what a text is about."""
