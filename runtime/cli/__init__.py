"""The `litebox` command line."""
