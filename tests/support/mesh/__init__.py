"""A real Envoy mesh on this machine."""
