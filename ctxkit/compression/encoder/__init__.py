"""Encoders that read texts token by token: windows, batches, precision."""
