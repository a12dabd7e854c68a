"""The edge store, and what is left in it of users who were forgotten."""
