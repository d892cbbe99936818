"""Steps of some commands before or after the mean: windows, decay, experts, a scale, a search, several goals."""
