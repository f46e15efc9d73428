"""One operator per file: the frozen spec says what, the operator it builds says how."""
