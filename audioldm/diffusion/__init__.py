"""The heart: schedules, grids, samplers, guidance and objectives as pure functions."""
