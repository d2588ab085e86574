"""Steering by what a sound does in time, or by a sound itself: condition maps and the small nets that read them."""
