"""Processing: panes of the log in, blocks of rows out. ``pipeline.py`` is the way in; everything here is a
pure function of the log.
"""
