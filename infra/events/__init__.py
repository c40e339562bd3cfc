"""CloudEvents: scheduled work that they ask for (`tasks`), and domain events on their way out (`outbox`, `sink`)."""
