"""What wakes an agent besides messages: alarms, events, webhooks."""
