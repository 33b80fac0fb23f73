"""The operator's side of brats_fl: sample data, import, partition, jobs, evaluation, report. Never shipped."""
