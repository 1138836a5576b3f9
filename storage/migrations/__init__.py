"""SQL of the tables: numbered files are run once, in order; ``functions.sql`` and the views every time."""
