"""Texts cut up: sentences, words, pins, and how much a piece of text matters by itself."""
