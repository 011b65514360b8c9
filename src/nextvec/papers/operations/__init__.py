"""What the people who run a site need: backups, figures for monitors, logs."""
