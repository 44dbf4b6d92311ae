"""Job specs: recipe and order, the plan of shards, counter-based noise, canonical JSON."""
