"""Federated segmentation of brain tumours: the library that ships to the sites and to the server."""

import os

__version__ = "0.1.0"

# Where MLflow is installed, MONAI imports it, and MLflow then tells its makers so. That is for the hospital to decide.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
