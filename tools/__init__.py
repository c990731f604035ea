"""What builds and checks the book: run notebooks, tell stale outputs, export plain copies."""
