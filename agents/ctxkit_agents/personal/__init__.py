"""Personal context: what a user asked for once and for all, what is known of them, and where else to look."""
