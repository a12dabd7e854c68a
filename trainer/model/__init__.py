"""The parts of the model: transitions, neighbours, low pass, learned part, and the gcn."""
