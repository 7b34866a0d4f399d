"""What makes the kernel hold what node_state() wants: each with read() -> diff() -> apply()."""
