"""What a search found: a table and a page."""
