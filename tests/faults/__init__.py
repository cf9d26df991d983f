"""What goes wrong around a webhook, while a well-behaved client notices nothing."""
