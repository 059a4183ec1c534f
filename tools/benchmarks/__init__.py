"""Measurements that ``python -m tools benchmark`` puts together."""
