"""Archives for others: what goes in, hashes of it all, writing, and reading with a check."""
