"""What is no prose: JSON, tables, code and logs, read by their form."""
