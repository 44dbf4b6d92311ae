"""Networks as data: graphs of named operations, and the modules that compute them."""
