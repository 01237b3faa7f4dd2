"""What a machine needs before the first job: environments, profile, computer, codes."""
