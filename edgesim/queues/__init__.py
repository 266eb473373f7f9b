"""Queues: producers and consumers over a store of messages."""
