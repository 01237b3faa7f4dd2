"""One file for each calculator that labels frames inside a job."""
