"""The laboratory: a control plane and nodes on one machine, for demo, tests and benchmarks."""
