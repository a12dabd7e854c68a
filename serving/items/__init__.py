"""Items that came after the model."""
