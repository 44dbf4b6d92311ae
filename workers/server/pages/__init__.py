"""Pages for browsers: rendered here by Jinja, with htmx; scripts and styles are files of this package."""
