"""When and how people are told: seasons, topics, the outbox, Firebase."""
