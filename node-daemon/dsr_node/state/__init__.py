"""Pure: what this kernel should hold, from the plans and the facts of this node."""
