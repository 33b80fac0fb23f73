"""How good a model is: metrics, the per-case table, masks on disk."""
