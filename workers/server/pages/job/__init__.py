"""The page of a job that is followed: its shards, its images as they are made, its speed and its cost."""
