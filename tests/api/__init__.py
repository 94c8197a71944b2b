"""The sockets as a stranger meets them: both dialects, every verb, and everything that is no request."""
