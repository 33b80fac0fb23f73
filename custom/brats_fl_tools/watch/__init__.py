"""``brats-fl watch``: follow a running job, of any mode, in a terminal and on a page of this machine alone."""
