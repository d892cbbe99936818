"""Why soups fail: facts, then evidence, then causes."""
