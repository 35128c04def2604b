"""Questions asked of a posterior, their verdicts, and the report."""
