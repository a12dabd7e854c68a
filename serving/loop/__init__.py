"""What serving does, round by round."""
