"""What a Polars expression needs and gives."""
