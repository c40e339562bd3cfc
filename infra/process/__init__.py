"""The process: what comes before its imports, its start, its server and its signals, and its exit statuses."""
