"""The OpenAI-compatible proxy: the champion in front of the model, each reply checked and on disk before it is sent."""
