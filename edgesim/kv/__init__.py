"""KV namespaces: ``namespace`` has the platform's behaviour, ``driver`` the interface of stores."""
