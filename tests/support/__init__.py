"""What several tests share: tiny models, data sets, clips, goldens."""
