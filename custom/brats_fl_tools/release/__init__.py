"""What a release is made of: the wheel, and the offline folder of all wheels. Run from a checkout."""
