"""What all methods run on: tasks and jobs, events and their trace, tools, and the checkpoint of a run."""
