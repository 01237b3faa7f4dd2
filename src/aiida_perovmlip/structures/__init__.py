"""Builders of perovskite structures on ASE alone."""
