"""Steps of a chain that run in the AiiDA process, with provenance."""
