"""What runs in the processes of the engines, each with its own Python: standard library and engine."""
