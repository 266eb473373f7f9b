"""Protocol of the channel between the platform and an isolate; both sides import it."""
