"""What keeps a hospital's update to itself: plain functions, no FLARE, and no primitive of cryptography of our own."""
