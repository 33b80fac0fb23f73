"""What privacy costs: a plan before a private job starts, and what hospitals have spent."""
