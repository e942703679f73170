"""Stand-ins for what is not ours, spoken to over the real wire: a local FCM and a TCP proxy that breaks connections."""
