"""Jobs: work over the whole store that runs behind the watermark (docs/adr/0048).

``job`` has the protocol, ``schedule`` runs a tuple of jobs, every other file is one job.
"""
