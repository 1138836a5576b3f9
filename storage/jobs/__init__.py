"""Jobs over the store that run behind the watermark."""
