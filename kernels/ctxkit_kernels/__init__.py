"""Kernels: arrays in, arrays out; knows nothing about text. Empty today."""
