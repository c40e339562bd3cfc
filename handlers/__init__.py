"""What the service does, one file or folder a resource: yours to change."""
