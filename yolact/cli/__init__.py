"""Command lines: with the scripts the only place that knows argparse."""
