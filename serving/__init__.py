"""From embedding to recommendation: every user's list in Redis, fresh after each event."""
