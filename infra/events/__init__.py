"""CloudEvents: domain events on their way out (`outbox`, `sink`), and scheduled work that events ask for (`tasks`)."""
