"""The ledger in Redis: claims, leases, attempts, progress, quotas."""
