"""Workers and what they can reach.

``worker`` runs handlers, ``invocation`` is the platform's side of one run, ``bindings`` is what
stands on ``env``, ``tail`` carries traces to Tail Workers, ``delivery`` turns queue batches into
invocations and their outcomes into acks, ``outbound`` is ``fetch`` to anywhere.
"""
