"""The XDP director of this node: desired values, the layout of its maps, and the subsystem."""
