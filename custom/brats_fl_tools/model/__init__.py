"""Using a trained model: evaluate it, export it."""
