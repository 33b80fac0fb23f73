"""Using a trained model: evaluate it, segment with it, export it."""
