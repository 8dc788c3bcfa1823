"""What several systems share: networks, losses, batches, schedules, sample sheets."""
