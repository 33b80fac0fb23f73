"""What a federation is compared with, by its own code: each hospital alone, all lists pooled, all hospitals but one."""

from brats_fl_tools.baseline.command import app
from brats_fl_tools.baseline.pretrain import pretrain

__all__ = ["app", "pretrain"]
