"""A sound encoder towards the frozen image encoder of a preset (§3.1)."""
