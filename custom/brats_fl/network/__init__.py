"""What is trained: networks, losses, how they are called and scheduled, and their checkpoints."""
