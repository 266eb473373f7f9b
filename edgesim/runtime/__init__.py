"""Worker runtime: invocations, bindings, traces and outbound requests.

``worker`` runs handlers, ``invocation`` is the platform's side of one run, ``bindings`` implements
the attributes of ``env``, ``tail`` delivers traces to Tail Workers, ``delivery`` turns queue
batches into invocations and their outcomes into acks, ``outbound`` implements ``fetch``.
"""
