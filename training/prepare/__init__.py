"""From videos, sounds and pictures as people have them to a prepared dataset."""
