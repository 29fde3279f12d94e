"""Hooks watch training; whatever changes a gradient is in the objective or the optimizer."""
