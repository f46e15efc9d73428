"""One rewrite of the plan per file; each gives the same rows for less work."""
