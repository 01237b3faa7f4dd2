"""Work at large: what runs and what is stuck, how it is mended, what may be cleaned, many chains in one campaign."""
