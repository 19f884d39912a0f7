"""The heart: parts and a budget in, a plan out. No torch, no network."""
