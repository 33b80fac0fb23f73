"""The fault drill: things that go wrong in a federation of six hosts, and what came of each."""

from brats_fl_tools.drill.command import drill

__all__ = ["drill"]
