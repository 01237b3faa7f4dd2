"""Chains of calculations, one scientific question each."""
