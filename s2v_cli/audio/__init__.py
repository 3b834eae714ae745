"""Sound: reading, mixing and the encoders' front ends."""
