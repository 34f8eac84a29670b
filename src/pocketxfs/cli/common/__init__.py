"""What the verbs share: arguments, operands, walking, sorting, hard links, text, progress."""
