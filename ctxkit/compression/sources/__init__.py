"""Sources: one ranking of a text's pieces, cut to any size; the ladder of levels; several texts under one budget."""
