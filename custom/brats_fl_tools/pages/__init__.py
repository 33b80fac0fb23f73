"""What all pages share: templates, styles, number formats, diagrams, pictures."""
