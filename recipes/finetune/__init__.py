"""Models that go on from the embedded one: trained side by side, and judged."""
