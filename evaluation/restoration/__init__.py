"""A method and images → restorations on disk; resumable, shared."""
