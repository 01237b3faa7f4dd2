"""The nodes: datasets and potentials."""
