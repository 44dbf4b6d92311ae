"""What images look like to a network: features of a classifier, or of an encoder where there are no labels."""
