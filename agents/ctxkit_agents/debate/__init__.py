"""Debate: agents that read each other's answers and answer again, in text or in beliefs."""
