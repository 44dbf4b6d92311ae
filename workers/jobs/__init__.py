"""Jobs: markers of open builds, tickets, the pool's decisions, status."""
