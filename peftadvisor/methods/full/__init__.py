"""Full fine-tuning and its thrifty forms."""
