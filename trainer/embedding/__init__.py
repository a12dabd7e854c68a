"""What a trained model leaves, and what follows from it for users and items it has not seen."""
