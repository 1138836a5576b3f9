"""Processing: panes of the log in, blocks of rows out; all of it is a pure function of the log.

``pane_processor.py`` is the way in.
"""
