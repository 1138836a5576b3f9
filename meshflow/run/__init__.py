"""The commands that run until they are stopped, one file a command."""
