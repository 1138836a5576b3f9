"""Receivers as senders meet them: real clients, and peers that mean harm."""
