"""How models come and go: when to train, what goes live, what is kept."""
