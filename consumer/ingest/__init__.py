"""The consumer's loop: messages -> rows -> one commit of rows and offsets."""
