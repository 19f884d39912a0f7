"""Several models write one answer: the loop, who is asked when (routers), and what happens then (combine)."""
