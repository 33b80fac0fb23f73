"""Reading a download: find its cases, whatever the layout, and write them as one case table."""
