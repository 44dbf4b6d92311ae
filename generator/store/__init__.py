"""Where objects live: one contract, three stores."""
