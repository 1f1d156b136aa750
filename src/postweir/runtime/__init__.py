"""What a process stands on: frames, links, settings, logs, metrics, time, names."""
