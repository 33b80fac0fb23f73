"""Installing, checking and starting a hospital's kit."""
