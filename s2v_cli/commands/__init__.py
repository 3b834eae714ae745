"""Commands: one file each, that parses, makes one library call and prints."""
