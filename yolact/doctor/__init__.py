"""Dataset checks: findings that deserve a look, labels that a model contradicts, a mended copy."""
