"""The Nexmark queries in unistream, in SQL to check them, and in Polars to compare with."""
