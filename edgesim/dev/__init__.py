"""``edgesim dev`` and ``serve``: HTTP in front of a Simulator, reload on save, admin endpoints.

``server`` runs the command, ``front`` passes requests from sockets to Workers, ``admin`` serves
/cdn-cgi/, ``reload`` watches files, ``presence`` records which process owns a state directory.
"""
