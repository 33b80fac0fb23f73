"""Federated segmentation of brain tumours: the library that ships to the sites and to the server."""

__version__ = "0.1.0"
