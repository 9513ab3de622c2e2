"""Experiments that run from a checkout."""
