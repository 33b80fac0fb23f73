"""A study is a file: the runs that it declares are carried out, gone on with and compared only where they may be."""

from brats_fl_tools.study.command import app

__all__ = ["app"]
