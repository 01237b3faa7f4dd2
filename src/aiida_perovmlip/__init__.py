"""Machine-learned interatomic potentials for halide perovskites in one AiiDA provenance graph."""

__version__ = '0.1.0'
