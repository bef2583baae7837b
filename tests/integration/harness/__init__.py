"""What the integration tests share: a real daemon, a generated client, images, events."""
