"""The routes: one file for each thing that a server is asked for."""
