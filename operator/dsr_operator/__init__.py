"""The operator: decides what every node should do, and never touches a kernel."""
