"""What images look like to a network: features of a classifier or an encoder; and what is near what."""
