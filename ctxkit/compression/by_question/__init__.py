"""The sentences that answer a question, and the words at the edge of the budget."""
