"""Who may ask what: keys, roles, sessions of browsers, the places of tenants, rate limits, the audit log."""
