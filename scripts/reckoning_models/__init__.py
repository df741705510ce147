"""How the small models of the reckoning world are made."""
