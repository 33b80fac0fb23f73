"""``brats-fl ledger``: what a run's ledger says, checked without a server."""
