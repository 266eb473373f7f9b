"""``edgesim replay``: run a fixture through the project and check the outcome.

``fixture`` reads requests, ``runner`` passes them to a Simulator, ``expectations`` compares,
``report`` prints.
"""
