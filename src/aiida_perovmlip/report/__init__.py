"""Figures, tables and pages; no physics is computed here."""
