"""Quality of datasets and lifetime of builds: diagnosis, quality measures, gates, retention, costs."""
