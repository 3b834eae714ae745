"""Weights: where they lie, and whether they are whole."""
