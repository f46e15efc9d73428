"""The Nexmark queries in the public API, and what runs them on a user's machine."""
