"""What ChainOfAgents is made of: the source and its chunks, the units and quotes of workers, what the chain costs."""
