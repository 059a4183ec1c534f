"""Anatomy Bundles: the shared package of losses, networks, registration, data, metrics and commands."""

__version__ = "0.1.0"
