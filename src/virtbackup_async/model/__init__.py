"""Values without behaviour: what the layers hand to each other."""
