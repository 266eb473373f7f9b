"""``edgesim dev`` and ``serve``: HTTP in front of a Simulator, reload on save, admin endpoints.

``server`` is the life of the command, ``front`` the way from a socket to a Worker, ``admin`` what
lives under /cdn-cgi/, ``reload`` watches files, ``presence`` says who owns a state directory.
"""
