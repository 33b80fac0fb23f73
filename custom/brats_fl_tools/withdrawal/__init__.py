"""``brats-fl withdraw``: a study without a hospital, or without patients, that it began with."""
