"""FLARE classes, thin over the functions of this library; the only place that imports nvflare."""
