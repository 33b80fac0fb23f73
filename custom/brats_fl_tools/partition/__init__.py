"""Dealing cases to hospitals: strategies, splits, a page of what came out, and its record."""
