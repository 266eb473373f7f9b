"""JetStream of a NATS server, for the drivers of queues and KV."""
