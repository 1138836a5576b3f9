"""meshflow beside its peers: the same load, one machine, one run (``make bench-peers``, docs/peers.md)."""
