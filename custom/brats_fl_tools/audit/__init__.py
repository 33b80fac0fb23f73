"""What a model and its updates tell of the cases that they were trained on: ``brats-fl audit``, at the hospital."""
