"""Parts of the load test: arrivals, sessions, records, and summaries."""
