"""What a host can do and what not: facts gathered, judged, and told."""
