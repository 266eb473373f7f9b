"""``edgesim replay``: a fixture through the same chain, and what came of it.

``fixture`` reads requests, ``runner`` drives them through a Simulator, ``expectations`` compares,
``report`` prints.
"""
