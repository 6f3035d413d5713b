"""How one request becomes one answer: the prompt, the extraction, the strategy."""
