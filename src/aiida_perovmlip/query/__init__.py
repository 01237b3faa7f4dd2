"""Questions to the database: what is better than what, and where it comes from."""
