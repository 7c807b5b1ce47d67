"""WebSocket close codes (RFC 6455, section 7.4.1; 1012 and 1013 from IANA's registry)."""

CLOSE_NORMAL = 1000
CLOSE_POLICY = 1008
CLOSE_RESTART = 1012
CLOSE_TAKEN_OVER = 4001
"""Another connection has resumed the session."""
