"""The node daemon: makes one kernel hold what the plans say, and undoes it."""
