"""What is kept out of the store: attributes by key, texts by pattern."""
