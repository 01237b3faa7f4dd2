"""From the files of a finished job to nodes."""
