"""Metrics: histograms and numbers are kept by whoever counts, registered once, and written when /metrics is asked."""
