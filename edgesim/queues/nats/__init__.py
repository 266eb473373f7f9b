"""``nats://``: queues on NATS JetStream."""
