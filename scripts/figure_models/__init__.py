"""How the two small models of the figure world are made."""
