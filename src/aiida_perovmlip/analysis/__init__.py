"""Pure science: arrays in, frozen dataclasses out."""
