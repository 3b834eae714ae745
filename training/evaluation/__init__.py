"""How good a preset is: scores, user study, modality gap (§4)."""
