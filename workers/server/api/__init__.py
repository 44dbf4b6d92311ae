"""API v1: jobs, bundles, datasets and builds, schedules, samples, previews."""
