"""From records to tables, statistics, figures and a page."""
