"""``meshflow up`` as a process of its own."""
