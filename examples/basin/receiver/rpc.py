"""Call an RPC method whose name Pyodide would resolve to a Python method.

On the platform a pipeline binding is a stub that has every property, so Pyodide treats it as an
iterator, and the iterator's own ``send`` hides the RPC method.  ``call`` reads the method from the
JavaScript object; without JavaScript (in edgesim) it is a plain method call.
"""

import json


async def call(binding, name, *args):
    """Return ``await binding.name(*args)``; the arguments must be JSON values."""
    try:
        from js import JSON, Array, Reflect
    except ImportError:
        return await getattr(binding, name)(*args)
    target = getattr(binding, "_binding", binding)
    # Inside an array: a stub is thenable, so Pyodide would await it as the result of a call.
    holder = getattr(Array, "from")(JSON.parse("[0]"), Reflect.get.bind(None, target, name))
    # Through JSON: None becomes null, and no int becomes a BigInt.
    return await Reflect.apply(holder[0], target, JSON.parse(json.dumps(args)))
