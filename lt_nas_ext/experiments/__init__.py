"""Whole experiments: several runs in one directory, one table and one page at the end."""
