"""What people and Prometheus see of a node: /metrics, /healthz, /readyz and /state."""
