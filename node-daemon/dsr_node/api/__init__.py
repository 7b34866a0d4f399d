"""The daemon's own Kubernetes client, and what it reads from and writes to the API."""
