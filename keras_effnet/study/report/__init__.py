"""The report of a scaling study: records, charts and the HTML page."""
