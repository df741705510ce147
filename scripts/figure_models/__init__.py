"""How the three small models of the figure world are made."""
