"""SQL of strangers: guards, engines, sessions."""
