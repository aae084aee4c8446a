"""Progress for people: on a terminal, in a notebook, as lines in a log, and of a run that another process makes.

``progress``: what listens to the work, and chooses where to show it: on a ``terminal``, in a ``notebook``, as ``plain``
lines; ``lines``: the words of all three; ``watching``: follows the log of a run.
"""
