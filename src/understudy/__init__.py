"""Learn how groups behave, from recordings of what they did."""
