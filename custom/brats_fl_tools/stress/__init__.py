"""How a model does on worse scans: ``brats-fl stress``, graded degradations of the hospitals' test cases."""
