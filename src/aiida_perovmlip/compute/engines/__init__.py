"""The engines that are part of this package, one module each."""
