"""One file for each architecture of potential."""
