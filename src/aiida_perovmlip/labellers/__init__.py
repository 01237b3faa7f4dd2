"""Ways to label frames: each says what it computes, which frames may share a job, and how failures are repaired."""
