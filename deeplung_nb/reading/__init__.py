"""From a CT to a mask, volumes and where they come from: `predict`, `measure`, `segment`."""
