"""Sample hospitals: synthetic cases in BraTS's layout, on real anatomy, for demos, tests and benchmarks."""

from __future__ import annotations

from brats_fl_tools.sample.case import SampleCase, make_case
from brats_fl_tools.sample.write import sample, write_nifti, write_sample

__all__ = ["SampleCase", "make_case", "sample", "write_nifti", "write_sample"]
