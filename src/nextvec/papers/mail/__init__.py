"""Papers by e-mail: subscriptions with double opt-in, digests, an outbox that sends nothing twice, and transports."""
