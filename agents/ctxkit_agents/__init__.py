"""Agents: combinators over models, under one budget. Empty today."""
