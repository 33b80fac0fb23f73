"""Saying what is to be run: jobs, their options, and the folder that FLARE is given."""
